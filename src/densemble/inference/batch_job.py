"""What is asked of a prediction of many files, and how many pictures are in hand at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.errors import UsageError
from densemble.tasks import Task


@dataclass(frozen=True)
class Job:
    """What to predict.

    Attributes:
        pictures: files.
        names: what each picture's files begin with; all different.
        out: folder to write into; must exist.
        what: kinds of files, of ``SAVE``.
        rank_by: uncertainty to rank pictures by, of ``RANKINGS``.
        asked: what the predictions depend on beside the pictures and the kinds of files (artifact, backend, precision,
            ...), values of JSON: what an earlier run finished counts only if it was asked the same.
    """

    pictures: Sequence[Path]
    names: Sequence[str]
    out: Path
    what: tuple[str, ...]
    rank_by: str | None
    asked: Mapping[str, Any]

    def uncertainty(self, task: Task) -> frozenset[str]:
        """Names of the maps of uncertainty that are needed: drawn, or ranked by."""
        drawn = {"variance" if task.distribution == "none" else "entropy"} if "uncertainty" in self.what else set()
        return frozenset(drawn | ({self.rank_by} if self.rank_by is not None else set()))


@dataclass(frozen=True)
class Pace:
    """How many at once.

    Attributes:
        batch: pictures that are computed together.
        pad: batches that are not full are filled up with their own pictures: for networks made for one batch size.
        readers: threads that decode.
        writers: threads that resize, draw and write.

    Raises:
        UsageError: a number below 1.
    """

    batch: int = 8
    pad: bool = False
    readers: int = 1
    writers: int = 2

    def __post_init__(self) -> None:
        if min(self.batch, self.readers, self.writers) < 1:
            raise UsageError(
                f"batch = {self.batch}, readers = {self.readers}, writers = {self.writers}; each must be at least 1"
            )

    @property
    def ahead(self) -> int:
        """The most pictures that are being decoded or wait to be grouped."""
        return self.readers + self.batch

    @property
    def waiting(self) -> int:
        """The most pictures that wait for others of their size."""
        return 3 * self.batch

    @property
    def behind(self) -> int:
        """The most pictures that are computed and not yet written."""
        return self.writers + self.batch
