"""The memory that decoded images may take: a limit for one image, and a budget that all threads share.

A file of a few bytes may describe an image of gigabytes. The size in its header is therefore checked before anything
is decoded, and a thread waits until the images of the other threads leave enough room. Images that are read in windows
do not count as a whole.
"""

import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from densemble.errors import DataError, UsageError

After = Callable[[int, int], int]
"""(number of channels, bytes per sample) of the decoded values -> bytes per pixel that are made of them at a time."""

VARIABLE = "DENSEMBLE_IMAGE_MEMORY"
DEFAULT_BYTES = 576 << 20  # label maps and colours of 8192 x 8192 pixels
_SHARE = 32  # without the variable, all threads together may use this part of the memory of the machine
_WORK = 2  # a thread that keeps an image converts and resizes it, which takes as much again
_STORED_RATIO = 4  # a file that decodes to at most this multiple of its bytes on disk is no bomb
_BLOCK = 512  # bytes of a block in st_blocks
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def image_memory() -> int:
    """Bytes that one image may take while it is decoded: ``DENSEMBLE_IMAGE_MEMORY`` or its default.

    Raises:
        UsageError: the variable is no number of bytes.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return DEFAULT_BYTES
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None or not int(match[1]):
        raise UsageError(f"{VARIABLE}={text} is no number of bytes; write it like 576M or 4G")
    return int(match[1]) << _UNITS[match[2].upper()]


def require_memory(path: Path, count: int) -> None:
    """Check that one image may take ``count`` bytes while it is decoded.

    Raises:
        DataError: it may not.
    """
    limit = image_memory()
    if count <= limit:
        return
    status = path.stat()
    if count > _STORED_RATIO * min(status.st_size, getattr(status, "st_blocks", math.inf) * _BLOCK):
        most = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
        raise DataError(
            f"'{path}' ({status.st_size} bytes) claims {math.ceil(count / (1 << 20))} MiB of memory for one image or "
            f"map, more than {most}; if the file is not damaged, allow it with {VARIABLE}="
            f"{math.ceil(count / (1 << 30))}G, or save it upright as tiled TIFF or as Zarr, which `densemble predict` "
            "reads in windows"
        )


class _Budget:
    """Bytes that threads take for decoded images; a thread that would exceed the budget waits for the others.

    A thread may take a second part while it holds a first one, such as a target after its image. If all threads that
    hold a part wait for another one, one of them continues; the budget is then exceeded by this one part.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken: dict[int, int] = {}
        self._waiting: set[int] = set()

    def take(self, count: int) -> None:
        """Wait until the calling thread may use ``count`` more bytes."""
        thread = threading.get_ident()
        with self._condition:
            holds = thread in self._taken
            if holds:
                self._waiting.add(thread)
                self._condition.notify_all()
            try:
                self._condition.wait_for(lambda: self._may_take(count, thread, holds))
            finally:
                self._waiting.discard(thread)
            self._taken[thread] = self._taken.get(thread, 0) + count

    def _may_take(self, count: int, thread: int, holds: bool) -> bool:
        if sum(self._taken.values()) + count <= _shared_bytes():
            return holds or not self._waiting
        return (self._taken.keys() - {thread}) <= self._waiting if holds else not self._taken

    def give_back(self, count: int) -> None:
        """Return bytes of the calling thread."""
        thread = threading.get_ident()
        with self._condition:
            rest = self._taken.pop(thread, 0) - count
            if rest > 0:
                self._taken[thread] = rest
            self._condition.notify_all()

    def forget(self) -> None:
        """Start again in a forked process, which has one thread."""
        self._condition = threading.Condition()
        self._taken.clear()
        self._waiting.clear()


_BUDGET = _Budget()
_KEPT = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BUDGET.forget)


@contextmanager
def decoding_memory(path: Path, count: int) -> Iterator[None]:
    """Decode an image that takes ``count`` bytes, as soon as the other threads leave enough room.

    Raises:
        DataError: the image may not take so much, see :func:`require_memory`.
    """
    require_memory(path, count)
    kept: list[int] | None = getattr(_KEPT, "counts", None)
    if kept is not None:
        count = max(count, min(_WORK * count, _shared_bytes()))
    _BUDGET.take(count)
    if kept is not None:
        kept.append(count)
    try:
        yield
    finally:
        if kept is None:
            _BUDGET.give_back(count)


def is_kept_in_memory() -> bool:
    """Whether the calling thread is inside :func:`kept_in_memory`."""
    return getattr(_KEPT, "counts", None) is not None


@contextmanager
def kept_in_memory() -> Iterator[None]:
    """Count the images that this thread decodes in this context until its end, because it still works on them."""
    if is_kept_in_memory():
        yield
        return
    _KEPT.counts = []
    try:
        yield
    finally:
        counts, _KEPT.counts = _KEPT.counts, None
        if counts:
            _BUDGET.give_back(sum(counts))


def _shared_bytes() -> int:
    return image_memory() if os.environ.get(VARIABLE) else max(DEFAULT_BYTES, _machine_bytes() // _SHARE)


def _machine_bytes() -> int:
    """Memory of the machine, or of the container that limits it."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
    try:
        limit = _CGROUP.read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
