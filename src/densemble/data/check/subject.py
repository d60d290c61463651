"""What is needed of a data folder to check it."""

from pathlib import Path
from typing import Any, Protocol

from densemble.data.layouts import Layout
from densemble.data.read_pairs import Reading
from densemble.data_options import DataOptions


class Checkable(Protocol):
    """A data folder as far as a check knows it; :class:`densemble.data.folder.FolderData` is one."""

    path: Path
    task_name: str
    layout: Layout
    reading: Reading
    classes: list[str] | None
    ignore_index: int
    invalid_below: float | None
    scale: float
    heat_is_told: bool
    options: DataOptions

    def settle(self) -> dict[str, Any]:
        """Lets the reading know what only all files say together."""

    @property
    def ignored_by_default(self) -> bool:
        """Whether nobody has said which label is ignored."""

    @property
    def task(self) -> Any:
        """The task with what the training maps say."""
