"""Memory that is no longer needed, given back to the system where it can be.

Weights of artifacts and of converted networks lie in files that are mapped into memory. A compiled network has them in
a layout of its own, so that their pages can go; should they be needed again, the system reads them again.
"""

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from densemble.inference.cache import cache_folder

EVERY = 0.2
"""Seconds."""
_DONTNEED, _PAGEOUT = 4, 21
"""Advice of Linux: pages leave this process and stay in the system's cache, but what was written to them is lost; and
pages leave the cache too (Linux 5.4), and nothing is lost."""
_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ [1-9]\d* +(/[^\n]*)$(?:\n\w+: [^\n]*)*?\nAnonymous: +(\d+) kB$", re.MULTILINE
)
"""Of /proc/self/smaps: first and last address, file, and how much of it was written to."""


def give_back() -> None:
    """Collects garbage, and gives the system back what the allocator holds free and pages of weights' files."""
    gc.collect()
    if not sys.platform.startswith("linux"):
        return
    with suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    _pages_of_weights()


@contextmanager
def giving_back() -> Iterator[None]:
    """Gives pages of weights' files back all along: for what reads many weights once, to lay them out anew."""
    done = Event()

    def repeat() -> None:
        while not done.wait(EVERY):
            _pages_of_weights()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        give_back()


def _pages_of_weights() -> None:
    if not sys.platform.startswith("linux"):
        return
    library, converted = ctypes.CDLL(None), str(cache_folder() / "openvino")
    with suppress(OSError, AttributeError):
        for start, end, path, written in _MAPPING.findall(Path("/proc/self/smaps").read_text(encoding="utf-8")):
            if path.endswith(".safetensors") or (path.startswith(converted) and path.endswith(".bin")):
                first, last = int(start, 16), int(end, 16)
                advice = _DONTNEED if written == "0" else _PAGEOUT
                library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
