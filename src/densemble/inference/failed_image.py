"""FailedImage: the result of an image that could not be predicted."""

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from densemble.errors import DataError
from densemble.inference.formats import FormatOptions
from densemble.inference.image_prediction import ImagePrediction

_MAPS = frozenset(field.name for field in fields(ImagePrediction))


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be read or predicted.

    Attributes:
        name: stem of its file, or a number for an image that came as an array.
        path: file of the image; ``None`` if it came as an array.
        failed: the reason, in one line; ``None`` for an :class:`ImagePrediction`.
    """

    name: str
    path: Path | None
    failed: str

    def save(
        self,
        folder: str | Path,
        what: tuple[str, ...] = (),
        name: str | None = None,
        formats: FormatOptions | None = None,
    ) -> list[Path]:
        """Write nothing and warn with the reason, so that a loop that saves predictions continues."""
        warnings.warn(f"nothing is saved: {self.failed}", stacklevel=2)
        return []

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute in _MAPS or hasattr(ImagePrediction, attribute):
            raise DataError(f"there is no {attribute}: {self.failed}; look at `.failed` first, which holds the reason")
        raise AttributeError(f"'FailedImage' object has no attribute '{attribute}'")

    def __repr__(self) -> str:
        return f"<FailedImage '{self.name}': {self.failed}>"
