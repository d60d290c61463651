"""What is needed of a data folder to check it."""

from pathlib import Path
from typing import Any, Protocol

from densemble.data.layouts import Layout
from densemble.data.reading import Reading


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
    options: dict[str, Any]

    def decide(self) -> dict[str, Any]:
        """Decides what has to be decided once from all maps."""

    @property
    def task(self) -> Any:
        """The task with what the training maps say."""
