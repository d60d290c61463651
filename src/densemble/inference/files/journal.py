"""Journal of finished images in a folder of predictions, so that a second run predicts only the missing ones.

``predicted.jsonl`` holds the settings, and one line per finished image, appended when it is finished. If the process is
killed, at most the last line is incomplete, and its image is predicted again.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from densemble.errors import DataError
from densemble.inference.files.json_lines import JsonLines
from densemble.inference.saved import SavedPrediction
from densemble.untrusted import validated

JOURNAL = "predicted.jsonl"


State = tuple[int, int]
"""Size (bytes) and modification time (ns) of an image file."""


def source_state(image: Path) -> State:
    """Size (bytes) and modification time (ns) of an image file.

    Raises:
        DataError: the file cannot be accessed.
    """
    try:
        state = image.stat()
    except OSError as error:
        raise DataError(f"cannot read '{image}': {error.strerror or error}") from error
    return state.st_size, state.st_mtime_ns


@dataclass(frozen=True)
class JournalLine:
    """A line of the journal: image, its state, name of the prediction, names of its files, and what was left out."""

    picture: str
    size: int
    mtime_ns: int
    name: str
    files: list[str]
    unsure: float | None
    without: dict[str, str] = field(default_factory=dict)


_LINE = TypeAdapter(JournalLine)


class Journal(JsonLines):
    """The finished images of one output folder.

    Args:
        folder: folder of the predictions; must exist.
        settings: JSON values of everything that predictions depend on besides the images. A journal with other
            settings is discarded.

    Raises:
        ResourceError: the journal cannot be read or written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder / JOURNAL, settings)
        self.folder = folder
        self.finished: dict[str, tuple[SavedPrediction, State]] = {}
        """Results by name, with the state of the source file when it was read."""
        for _, values in self.lines():
            with suppress(ValueError, TypeError, LookupError):  # the image of a damaged line counts as not finished
                kept = validated(_LINE, values)
                files = tuple(folder / file for file in kept.files)
                prediction = SavedPrediction(kept.name, Path(kept.picture), files, kept.unsure, kept.without, True)
                self.finished[prediction.name] = prediction, (kept.size, kept.mtime_ns)

    def find(self, image: Path, name: str) -> SavedPrediction | None:
        """Result of a finished image; ``None`` if it is missing, its source changed or an output file is missing."""
        if name not in self.finished:
            return None
        prediction, state = self.finished[name]
        with suppress(DataError):
            if prediction.path == image.absolute() and source_state(image) == state:
                return replace(prediction, path=image) if all(file.is_file() for file in prediction.files) else None
        return None

    def add(self, prediction: SavedPrediction, state: State) -> None:
        """Append a finished image, which must have a path, to the file.

        Raises:
            ResourceError: the journal cannot be written.
        """
        assert prediction.path is not None
        values = {
            "picture": str(prediction.path.absolute()), "size": state[0], "mtime_ns": state[1],
            "name": prediction.name, "files": [file.name for file in prediction.files],
            "unsure": prediction.unsure, "without": dict(prediction.without),
        }  # fmt: skip
        self.append(values)
        self.finished[prediction.name] = prediction, state
