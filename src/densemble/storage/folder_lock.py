"""The lock of an output folder: only one process writes into it, and the lock of a dead process is free."""

import fcntl
import json
import logging
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from densemble.errors import ResourceError
from densemble.storage.temporary import sweep, without_locks
from densemble.storage.writing import require_writable, writing
from densemble.untrusted import Unreadable, parse_json

LOCK = ".lock"
Result = TypeVar("Result")
_MOST_BYTES = 4096  # of a lock file
_LONGEST_COMMAND = 300
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # set in the processes of a distributed training

log = logging.getLogger(__name__)


@dataclass
class _Held:
    descriptor: int
    file: Path
    uses: int = 1


_held: dict[tuple[int, int], _Held] = {}  # by device and inode of the folder
_changing = Lock()


def _release_after_fork() -> None:
    """Leave the locks to the parent: a child that outlives it would keep them."""
    for held in _held.values():
        with suppress(OSError):
            os.close(held.descriptor)
    _held.clear()
    _changing.release()


os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_release_after_fork)


@contextmanager
def folder_lock(folder: Path, deep: bool = True) -> Iterator[None]:
    """Lock an output folder for this process while the context is open, and remove what dead processes left there.

    The folder is created if it is missing, and removed at the end if it is empty then. The process that holds a lock
    may take it again. The system releases the lock of a process that ends in any way; the file ``.lock`` may then stay,
    and means nothing. Where the file system has no locks, one line is logged and the folder is not locked. Of the
    processes of a distributed training, only the first one locks.

    Args:
        folder: output folder.
        deep: whether leftovers are also looked for in the folders in it.

    Raises:
        ResourceError: another process holds the lock; the message says which one. Or the folder cannot be written.
    """
    if any((os.environ.get(rank) or "0") != "0" for rank in _RANKS):
        yield
        return
    is_new = not folder.exists()
    status = require_writable(folder).stat()
    key = (status.st_dev, status.st_ino)
    with _changing:
        if key in _held:
            _held[key].uses += 1
        else:
            _held[key] = _lock(folder)
            sweep(folder, deep)
    try:
        yield
    finally:
        with _changing:
            if key in _held:  # not in a fork
                _held[key].uses -= 1
                if not _held[key].uses:
                    _unlock(_held.pop(key))
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # nothing was written


def alone_in(folder: Path, results: Iterator[Result]) -> Iterator[Result]:
    """Yield the results of work that writes into a folder, which is locked until the last one.

    Raises:
        ResourceError: see :func:`folder_lock`.
    """
    with folder_lock(folder, deep=False):
        yield from results


def _lock(folder: Path) -> _Held:
    file = folder / LOCK
    while True:
        with writing(file, "choose another folder, or remove it if nothing of yours is in it"):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(file, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ResourceError(f"'{file}' is no regular file; remove it, or choose another folder")
            with without_locks(lambda reason: log.info(f"'{folder}' is not locked ({reason})")):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(descriptor, file):  # its last holder may have removed it meanwhile
                _describe(descriptor)
                return _Held(descriptor, file)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ResourceError(
                f"'{folder}' is in use by {holder}; wait for it, stop it, or choose another folder with -o"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _unlock(held: _Held) -> None:
    with suppress(OSError):
        if _is_file(held.descriptor, held.file):
            held.file.unlink()  # before it is released: nobody else can have locked it
    os.close(held.descriptor)


def _is_file(descriptor: int, file: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    return False


def _describe(descriptor: int) -> None:
    """Write who holds the lock; a full disk does not matter."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_LONGEST_COMMAND]
    values = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(values).encode()[:_MOST_BYTES], 0)


def _holder(descriptor: int) -> str:
    """Return who holds the lock, from the content of its file."""
    values: Any = None
    with suppress(OSError, Unreadable, UnicodeError):
        values = parse_json(os.pread(descriptor, _MOST_BYTES, 0).decode())
    if not isinstance(values, dict):
        return "another process"
    pid, host, since, command = (str(values.get(key))[:_LONGEST_COMMAND] for key in ("pid", "host", "since", "command"))
    where = "" if host == socket.gethostname() else f" on {host}"
    return f"process {pid}{where} since {since} (`{command}`)"
