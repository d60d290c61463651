"""The interface of a data folder that a check needs."""

from typing import Protocol

from densemble.data.facts import Learnable
from densemble.data.layouts import Layout


class Checkable(Learnable, Protocol):
    """A data folder that can be checked; :class:`densemble.data.folder.FolderData` is one."""

    layout: Layout
    scale: float
    heat_max_is_given: bool

    def settle_channels(self) -> None:
        """Makes the decisions that need all targets: the value of heat that becomes 1, the number of channels."""

    @property
    def ignored_by_default(self) -> bool:
        """Whether neither the options nor the format set the ignored label."""
