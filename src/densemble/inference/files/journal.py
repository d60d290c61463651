"""The journal of a folder of predictions: which images are finished, so that a second run does only what is missing.

``predicted.jsonl`` holds one JSON object a line: first what was asked, then one line per finished image, appended
and flushed as it is finished. A kill can break the last line only, and its image is predicted again.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from densemble.errors import DataError, ResourceError

JOURNAL = "predicted.jsonl"
_FORMAT = 1


@dataclass(frozen=True)
class Finished:
    """An image whose files are written.

    Attributes:
        image: absolute path of the source.
        size, mtime_ns: of the source when it was read: bytes, nanoseconds.
        name: what its files begin with; unique in a folder.
        files: names of the files written.
        unsure: mean uncertainty, where images are ranked.
        without: members that it was predicted without, and why.
    """

    image: str
    size: int
    mtime_ns: int
    name: str
    files: tuple[str, ...]
    unsure: float | None
    without: Mapping[str, str] = field(default_factory=dict)


def source_state(image: Path) -> tuple[int, int]:
    """Bytes and time of the last change (ns) of an image's file.

    Raises:
        DataError: it cannot be found.
    """
    try:
        state = image.stat()
    except OSError as error:
        raise DataError(f"cannot read '{image}': {error.strerror or error}") from error
    return state.st_size, state.st_mtime_ns


class Journal:
    """The finished images of one output folder; a context that keeps the file open. Safe to add to from threads.

    Args:
        folder: of the predictions; must exist.
        asked: everything that the predictions depend on, beside the images; values of JSON. A journal that was begun
            for anything else starts anew.

    Raises:
        ResourceError: the journal cannot be read or written.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self.finished: dict[str, Finished] = {}
        self.discarded = 0
        """Images of an earlier run that was asked something else."""
        first = _line({"format": _FORMAT, "asked": dict(asked)})
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
        """Takes over what an earlier run finished; returns the bytes of the file that are kept."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines or lines[0] != first:
            self.discarded = max(len(lines) - 1, 0)
            return 0
        for line in lines[1:]:
            with suppress(ValueError, TypeError, LookupError):  # a damaged line is an image that is not finished
                values = json.loads(line)
                entry = Finished(values.pop("picture"), **{**values, "files": tuple(values["files"])})
                self.finished[entry.name] = entry
        return len(whole)

    def holds(self, image: Path, name: str) -> bool:
        """Whether an image is finished: its source has not changed since, and all its files are there."""
        entry = self.finished.get(name)
        if entry is None or entry.image != str(image.absolute()):
            return False
        try:
            unchanged = source_state(image) == (entry.size, entry.mtime_ns)
        except DataError:
            return False
        return unchanged and all((self.folder / file).is_file() for file in entry.files)

    def add(self, entry: Finished) -> None:
        """Notes a finished image on disk.

        Raises:
            ResourceError: the journal cannot be written.
        """
        with self._lock:
            values = asdict(entry)
            self._append(_line({"picture": values.pop("image"), **values}))
            self.finished[entry.name] = entry

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
        with suppress(OSError):  # closing tries once more to write what could not be written: that was raised already
            self._file.close()


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode("ascii")
