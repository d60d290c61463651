"""Journal of finished images in a folder of predictions, so that a second run predicts only the missing ones.

``predicted.jsonl`` holds one JSON object per line: first the settings, then one line per finished image, appended and
flushed when it is finished. If the process is killed, at most the last line is incomplete, and its image is predicted
again.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from densemble.errors import DataError, ResourceError
from densemble.inference.saved import SavedPrediction

JOURNAL = "predicted.jsonl"
_FORMAT = 1


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


class Journal:
    """The finished images of one output folder. A context manager that keeps the file open; :meth:`add` is thread-safe.

    Args:
        folder: folder of the predictions; must exist.
        settings: JSON values of everything that predictions depend on besides the images. A journal with other
            settings is discarded.

    Raises:
        ResourceError: the journal cannot be read or written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self.finished: dict[str, tuple[SavedPrediction, State]] = {}
        """Results by name, with the state of the source file when it was read."""
        self.discarded = 0
        """Number of images of an earlier run with other settings."""
        first = _line({"format": _FORMAT, "asked": dict(settings)})
        self._lock = Lock()
        try:
            whole = self._read(first)
            self._file = self.path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            raise self._unwritable(error) from error
        if not whole:
            self._append(first)

    def _read(self, first: bytes) -> int:
        """Read the images of an earlier run; return the number of bytes of the file that stay."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines or lines[0] != first:
            self.discarded = max(len(lines) - 1, 0)
            return 0
        for line in lines[1:]:
            with suppress(ValueError, TypeError, LookupError):  # the image of a damaged line counts as not finished
                values = json.loads(line)
                files = tuple(self.folder / file for file in values["files"])
                prediction = SavedPrediction(
                    values["name"], Path(values["picture"]), files, values["unsure"], values.get("without", {}), True
                )
                self.finished[prediction.name] = prediction, (values["size"], values["mtime_ns"])
        return len(whole)

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
        with self._lock:
            self._append(_line(values))
            self.finished[prediction.name] = prediction, state

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ResourceError:
        return ResourceError(f"cannot write '{self.path}': {error.strerror or error}; choose another folder")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # close() repeats a failed write, whose error was raised already
            self._file.close()


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode("ascii")
