"""Failures of the system around a command, as one line: no memory, no threads, no processes, no current folder."""

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from densemble.errors import ResourceError

_NO_MEMORY = re.compile(
    r"not enough memory|can(?:no|')t allocate memory|out of memory|failed to map segment|os error 12\b|bad_alloc|"
    r"DefaultCPUAllocator",
    re.IGNORECASE,
)
_NO_THREAD = re.compile(r"can't start new thread|thread creation failed|Resource temporarily unavailable")
_MEMORY = "not enough memory ({}); free some, raise the limit (ulimit -v), or work with smaller images and batches"
_THREADS = "the system allows no more threads or processes ({}); raise the limit (ulimit -u)"
_OF_SYSTEM = {
    errno.EMFILE: "{}; raise the limit (ulimit -n)",
    errno.ENFILE: "{}; close other programs",
    errno.ENOSPC: "{}; free some space",
    errno.EDQUOT: "{}; free some space",
    errno.EROFS: "{}; choose another folder",
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _THREADS,
}


def require_current_folder() -> None:
    """Check that the current folder exists, because libraries look for files and modules in it.

    Raises:
        ResourceError: it was removed.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise ResourceError(
            f"the current folder cannot be used: {error.strerror or error}; change into another one (cd)"
        ) from error


def missing_resource(error: BaseException) -> str | None:
    """Say which resource of the system is missing; ``None`` for an error with another cause."""
    for cause in _causes(error):
        text = str(cause) or type(cause).__name__
        first = text.splitlines()[0][:200]
        if isinstance(cause, OSError) and cause.errno in _OF_SYSTEM:
            return _OF_SYSTEM[cause.errno].format(first)
        if isinstance(cause, MemoryError) or _NO_MEMORY.search(text):
            return _MEMORY.format(first)
        if _NO_THREAD.search(text):
            return _THREADS.format(first)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from or while they were handled."""
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__
