"""FailedPicture: stands for a picture that could not be predicted among those that could."""

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from densemble.errors import DataError
from densemble.inference.image_prediction import PicturePrediction

_MAPS = frozenset(field.name for field in fields(PicturePrediction))


@dataclass(frozen=True)
class FailedPicture:
    """A picture that could not be read or predicted.

    Attributes:
        name: its stem, or a number for a picture that came as an array.
        path: its file, if it has one.
        failed: why, in one line; ``None`` for a :class:`PicturePrediction`.
    """

    name: str
    path: Path | None
    failed: str

    def save(self, folder: str | Path, what: tuple[str, ...] = (), name: str | None = None) -> list[Path]:
        """Writes nothing and warns with the reason, so that a loop that saves predictions goes on."""
        warnings.warn(f"nothing is saved: {self.failed}", stacklevel=2)
        return []

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute in _MAPS or hasattr(PicturePrediction, attribute):
            raise DataError(f"there is no {attribute}: {self.failed}; look at `.failed` first, it says why")
        raise AttributeError(f"'FailedPicture' object has no attribute '{attribute}'")

    def __repr__(self) -> str:
        return f"<FailedPicture '{self.name}': {self.failed}>"
