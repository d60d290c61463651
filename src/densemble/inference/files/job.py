"""Where predictions are written, and how many images are in work at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.inference.stored_maps import required_maps


@dataclass(frozen=True)
class Output:
    """A folder of predictions.

    Attributes:
        folder: to write into; must exist.
        what: kinds of files, of ``SAVE``.
        rank_by: uncertainty to rank images by, of ``RANKINGS``.
        asked: what the predictions depend on beside the images and the kinds of files (artifact, backend, precision,
            ...), values of JSON: what an earlier run finished counts only if it was asked the same.
    """

    folder: Path
    what: tuple[str, ...]
    rank_by: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)

    def maps(self, ensemble: Ensemble) -> frozenset[str]:
        """Names of the maps that are needed: shown in files, or ranked by."""
        shown = {name for kind in self.what for name in required_maps(kind, ensemble)}
        return frozenset(shown | ({self.rank_by} if self.rank_by is not None else set()))


@dataclass(frozen=True)
class Pace:
    """How many at once.

    Attributes:
        batch: images that are computed together.
        pad: batches that are not full are filled up with their own images: for networks made for one batch size.
        readers: threads that decode; 0: the calling thread does.
        writers: threads that resize, draw and write; 0: the calling thread does.

    Raises:
        UsageError: a batch below 1, or a negative number of threads.
    """

    batch: int = 8
    pad: bool = False
    readers: int = 1
    writers: int = 2

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch = {self.batch} must be at least 1 image")
        if min(self.readers, self.writers) < 0:
            raise UsageError(f"readers = {self.readers}, writers = {self.writers}; neither may be negative")

    @property
    def ahead(self) -> int:
        """The most images that are being decoded or wait to be grouped."""
        return self.readers + self.batch

    @property
    def waiting(self) -> int:
        """The most images that wait for others of their size."""
        return 3 * self.batch

    @property
    def behind(self) -> int:
        """The most images that are computed and not yet written."""
        return self.writers + self.batch
