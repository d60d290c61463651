"""JsonLines: a file of JSON objects that survives a killed process, one per line below a line of settings."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self
from zlib import crc32

from densemble.storage.writing import open_to_append, writing
from densemble.untrusted import Unreadable, parse_json

_FORMAT = 1
_SUM = "crc32"
"""Key of the checksum of the other values of a line."""


def has_settings(path: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a file of :class:`JsonLines` exists and has these settings; it is not changed."""
    try:
        with path.open("rb") as file:
            return file.readline() == _settings_line(settings) + b"\n"
    except OSError:
        return False


def _settings_line(settings: Mapping[str, Any]) -> bytes:
    return json.dumps({"format": _FORMAT, "asked": dict(settings)}, sort_keys=True).encode("ascii")


def _values(line: bytes) -> dict[str, Any]:
    """Parse a line.

    Raises:
        ValueError: it is no JSON object, or its values differ from its checksum; lines of older versions have none.
    """
    values = parse_json(line.decode(), file_names=True)
    if not isinstance(values, dict):
        raise Unreadable("it is no JSON object")
    stored = values.pop(_SUM, None)
    if stored is not None and stored != _sum(values):
        raise Unreadable("its values differ from their checksum")
    return values


def _sum(values: Mapping[str, Any]) -> int:
    return crc32(json.dumps(dict(values)).encode("ascii"))


class JsonLines:
    """A context manager that keeps the file open; :meth:`append` is thread-safe.

    Lines are appended and flushed. If the process is killed, at most the last line is incomplete; it is removed when
    the file is opened again. Memory holds no lines.

    Args:
        path: the file; created if it is missing.
        settings: JSON values of everything that the lines depend on. The lines of a file with other settings are
            discarded.

    Raises:
        ResourceError: the file cannot be read or written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.discarded = 0
        """Number of lines with other settings."""
        first = _settings_line(settings)
        self._lock = Lock()
        with writing(path):
            end = self._end_of_lines(first)
            self._file = open_to_append(path)
            self._file.truncate(end)
        self._first = len(first) + 1
        if not end:
            self._write(first)

    def _end_of_lines(self, first: bytes) -> int:
        """Number of bytes of the file that stay."""
        if not self.path.exists():
            return 0
        end, number = 0, 0
        with self.path.open("rb") as file:
            same = True
            for number, line in enumerate(file):
                if number == 0:
                    same = line == first + b"\n"
                if line.endswith(b"\n"):
                    end += len(line)
        if not same:
            self.discarded = number
        return end if same else 0

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the position and the values of each line; damaged lines are left out.

        Raises:
            ResourceError: the file cannot be read.
        """
        position = self._first
        with writing(self.path), self.path.open("rb") as file:
            file.seek(position)
            for line in file:
                with suppress(ValueError):  # also UnicodeDecodeError and Unreadable
                    yield position, _values(line)
                position += len(line)

    def at(self, positions: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the values of the lines at these positions.

        Raises:
            ResourceError: the file cannot be read.
        """
        with writing(self.path), self.path.open("rb") as file:
            for position in positions:
                file.seek(position)
                yield _values(file.readline())

    def append(self, values: Mapping[str, Any]) -> int:
        """Append a line and return its position.

        Raises:
            ResourceError: the file cannot be written.
        """
        with self._lock:
            return self._write(json.dumps({**values, _SUM: _sum(values)}).encode("ascii"))

    def _write(self, line: bytes) -> int:
        with writing(self.path):
            position = self._file.seek(0, 2)
            self._file.write(line + b"\n")
            self._file.flush()
        return position

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # close() repeats a failed write, whose error was raised already
            self._file.close()
