"""Temporary folders of this process: random names, no entry for other users, removed when their process is gone.

Nobody can place a link in such a folder that a library would follow when it writes a file there by name. The process
locks the folder, and the system releases the lock of a process that ends in any way, so :func:`sweep` knows what is
left over. The age of a folder would not tell: the clocks of two machines differ.
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
"""Name of a temporary folder."""
NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
"""Errors of file systems that lack a function."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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


@contextmanager
def locked_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in ``parent`` that is locked by this process, and removed at the end of the context.

    Raises:
        OSError: ``parent`` cannot be written or the disk is full.
    """
    folder, descriptor = _new_folder(parent)
    try:
        yield folder
    finally:
        if descriptor in _locked:  # else this is a fork of the process that made it
            shutil.rmtree(folder, ignore_errors=True)
            _release(descriptor)


def _new_folder(parent: Path) -> tuple[Path, int]:
    """Make and lock a folder. If a sweep comes in between and removes it, make another one."""
    while True:
        folder = parent / f".densemble-{secrets.token_hex(8)}.tmp"
        folder.mkdir(0o700)
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(folder, _FOLDER)
            _locked.add(descriptor)
            try:
                with without_locks():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder.lstat()  # it still exists
                return folder, descriptor
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
    """Remove the temporary folders that dead processes left in a folder; ``deep``: and in the folders in it.

    A folder is removed if its lock is free. Where the file system has no locks, nothing is removed.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    continue
                if TEMPORARY.fullmatch(entry.name):
                    _remove_unlocked(Path(entry.path))
                elif deep:
                    sweep(Path(entry.path), deep)


def _remove_unlocked(folder: Path) -> None:
    descriptor = os.open(folder, _FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def remove_if_unused(folder: Path) -> bool:
    """Remove a folder that no process holds, see :func:`hold`; return whether it is gone."""
    with suppress(OSError):
        _remove_unlocked(folder)
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
