"""Find and open input files: regular files only, and without blocking.

A named pipe blocks whoever opens it, and a device such as ``/dev/zero`` never ends. Their names arrive like those of
images: in a folder, a glob or a table.
"""

import errno
import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from densemble.errors import UsageError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
# Absent on some systems. O_NONBLOCK does nothing for a regular file.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_CLOEXEC"))


class _NeverWaiting(FileIO):
    """A file whose reading fails where it would block: some files of ``/proc`` wait although they are regular."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if count is None:
            raise OSError(errno.EAGAIN, "reading it would block")
        return count

    def readall(self) -> bytes:
        content = super().readall()
        if content is None:
            raise OSError(errno.EAGAIN, "reading it would block")
        return content


def require_regular(path: Path) -> os.stat_result:
    """Check that a path is a regular file or a link to one, without opening it.

    Called before a library opens the path itself.

    Raises:
        OSError: it is not, it does not exist, or its name is too long or holds a null character.
    """
    try:
        status = path.stat()
    except ValueError as error:
        raise OSError(errno.EINVAL, f"unusable name: {error}", str(path)) from error
    return _checked(path, status)


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file or a link to one; false for names that no file can have."""
    try:
        require_regular(path)
    except OSError:
        return False
    return True


def is_no_folder(path: Path) -> bool:
    """Whether something that is no folder has this path: a file, or a pipe whose error is reported when it is read."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 (half the time of Path.stat)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; false for names that no folder can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def expanded(path: str | Path) -> Path:
    """Replace ``~`` at the beginning of a path by the home folder.

    Raises:
        UsageError: there is no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"'{path}' names the home folder, but HOME is not set; write the whole path") from error


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: see :func:`require_regular`; or it cannot be opened.
    """
    require_regular(path)  # opening some devices changes their state
    descriptor = os.open(path, _FLAGS)
    try:
        _checked(path, os.fstat(descriptor))
        return BufferedReader(_NeverWaiting(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _checked(path: Path, status: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    return status
