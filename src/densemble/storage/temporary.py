"""Temporary folders and files of this process: random names, folders closed to other users.

Nobody can place a link in such a folder that a library would follow when it writes a file there by name. The process
locks the folder or file, and the system releases the lock of a process that ends in any way, so :func:`sweep` knows
what is left over. The age of a folder would not tell: the clocks of two machines differ.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = re.compile(r"\.densemble-[0-9a-f]{16}\.tmp")
"""Name of a temporary folder or file."""
NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
"""Errors of file systems that lack a function."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_locked: set[int] = set()  # descriptors of the temporary folders of this process
_held: set[tuple[int, int]] = set()  # folders of the cache, by device and inode


def _release_after_fork() -> None:
    """Leave the locks to the parent: a child that outlives it would keep them."""
    for descriptor in _locked:
        with suppress(OSError):
            os.close(descriptor)
    _locked.clear()
    _held.clear()


os.register_at_fork(after_in_child=_release_after_fork)


class _Swept(Exception):
    """Raised if another process removed a temporary folder or file before it was locked."""


@contextmanager
def locked_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in ``parent`` that is locked by this process, and removed at the end of the context.

    Raises:
        OSError: ``parent`` cannot be written or the disk is full.
    """
    folder, descriptor = _new(parent, _make_folder)
    try:
        yield folder
    finally:
        if descriptor in _locked:  # else this is a fork of the process that made it
            shutil.rmtree(folder, ignore_errors=True)
            _release(descriptor)


@contextmanager
def locked_file(parent: Path) -> Iterator[tuple[Path, int]]:
    """Yield a new file in ``parent``, and its descriptor; it is removed at the end of the context, if it still exists.

    It is cheaper than a folder. It is not for libraries that write to a path: they may replace the file, and its lock.

    Raises:
        OSError: ``parent`` cannot be written or the disk is full.
    """
    file, descriptor = _new(parent, _make_file)
    try:
        yield file, descriptor
    finally:
        if descriptor in _locked:  # else this is a fork of the process that made it
            with suppress(OSError):
                file.unlink()
            _release(descriptor)


def _make_folder(path: Path) -> int:
    path.mkdir(0o700)
    try:
        return os.open(path, _FOLDER)
    except FileNotFoundError as error:
        raise _Swept from error


def _make_file(path: Path) -> int:
    return os.open(path, _FILE | os.O_CREAT | os.O_EXCL, 0o666)


def _new(parent: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Make and lock a folder or a file. If a sweep comes in between and removes it, make another one."""
    while True:
        path = parent / f".densemble-{secrets.token_hex(8)}.tmp"
        with suppress(_Swept):
            descriptor = make(path)
            _locked.add(descriptor)
            try:
                with without_locks():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.lstat()  # it still exists
                return path, descriptor
            except (FileNotFoundError, BlockingIOError) as error:
                _release(descriptor)
                raise _Swept from error
            except OSError:
                _release(descriptor)
                raise


def _release(descriptor: int) -> None:
    _locked.discard(descriptor)
    os.close(descriptor)


@contextmanager
def without_locks(explain: Callable[[str], None] | None = None) -> Iterator[None]:
    """Go on where the file system has no locks; ``explain`` is called with the reason."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EBADF, *NOT_SUPPORTED):
            raise
        if explain is not None:
            explain(error.strerror or str(error))


def sweep(folder: Path, deep: bool = False) -> None:
    """Remove what dead processes left in a folder: temporary folders and files; ``deep``: and in the folders in it.

    It is removed if its lock is free. Where the file system has no locks, nothing is removed.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                if TEMPORARY.fullmatch(entry.name):
                    _remove_unlocked(Path(entry.path), is_folder)
                elif is_folder and deep:
                    sweep(Path(entry.path), deep)


def _remove_unlocked(path: Path, is_folder: bool) -> None:
    descriptor = os.open(path, _FOLDER if is_folder else _FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def remove_if_unused(folder: Path) -> bool:
    """Remove a folder that no process holds, see :func:`hold`; return whether it is gone."""
    with suppress(OSError):
        _remove_unlocked(folder, True)
    return not folder.exists()


def hold(folder: Path) -> None:
    """Keep a folder of the cache from being removed until this process ends."""
    with suppress(OSError):
        status = folder.stat()
        if (status.st_dev, status.st_ino) not in _held:
            descriptor = os.open(folder, _FOLDER)
            _locked.add(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _held.add((status.st_dev, status.st_ino))
