"""SavedPrediction: the result of an image whose files are written and whose maps are no longer in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SavedPrediction:
    """An image that was predicted into a folder.

    Attributes:
        name: start of the names of its files.
        path: file of the image; ``None`` if it came as an array.
        files: the files written.
        unsure: mean uncertainty, if images are ranked.
        without: members that gave no usable map of the image and were left out for it, with the reason.
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
        """``None``: the image was predicted; see :class:`densemble.inference.failed_image.FailedImage`."""
        return None
