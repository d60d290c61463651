"""The interface of a data folder that a check needs."""

from typing import Any, Protocol

from densemble.data.facts import Learnable
from densemble.data.layouts import Layout


class Checkable(Learnable, Protocol):
    """A data folder that can be checked; :class:`densemble.data.folder.FolderData` is one."""

    layout: Layout
    scale: float
    heat_max_is_given: bool

    def settle(self) -> dict[str, Any]:
        """Makes the decisions that need all files together, such as the value of heat that becomes 1."""

    @property
    def ignored_by_default(self) -> bool:
        """Whether neither the options nor the format set the ignored label."""

    @property
    def task(self) -> Any:
        """The task with the facts from the training targets."""
