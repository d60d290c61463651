"""SavedPrediction: stands for an image whose files are written, its maps no longer in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SavedPrediction:
    """An image that was predicted into a folder.

    Attributes:
        name: what the names of its files begin with.
        path: the image's file, if it has one.
        files: the files written.
        unsure: mean uncertainty, where images are ranked.
        without: members that gave no usable map of the image, which was predicted without them, and why.
        earlier: an earlier run wrote the files.
    """

    name: str
    path: Path | None
    files: tuple[Path, ...]
    unsure: float | None = None
    without: Mapping[str, str] = field(default_factory=dict)
    earlier: bool = False

    @property
    def failed(self) -> str | None:
        """``None``: it was predicted; see :class:`densemble.inference.failed_image.FailedImage`."""
        return None
