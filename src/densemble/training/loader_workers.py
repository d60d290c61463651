"""Worker processes of data loaders, as far as the shared memory of the system allows them."""

import logging
import os
import warnings
from pathlib import Path

import numpy as np

from densemble.data.decoded_cache import DecodedSplit

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps the batches that workers hand over; Docker gives a container 64 MiB."""
_BATCHES_OF_WORKER = 4  # two are prepared ahead, one is used, one is for what else is there
_FEW_PROCESSES = 10_000
_TARGET_BYTES = 8  # of a label

log = logging.getLogger(__name__)


def usable_workers(workers: int, split: DecodedSplit, batch_size: int) -> int:
    """Return the number of worker processes, or 0 with a warning if the system does not allow them.

    A worker that finds the shared memory full is killed by a bus error, and PyTorch waits for workers that did not
    start.

    Args:
        workers: requested number, for each of the two loaders of a training.
        split: samples; the loader hands them over as floats.
        batch_size: samples per batch.
    """
    sample = split.images[0].size * np.dtype(np.float32).itemsize + split.targets[0].size * _TARGET_BYTES
    reason = _obstacle(workers, workers * _BATCHES_OF_WORKER * batch_size * sample) if workers else None
    if reason is not None:
        warn_without_workers(workers, reason)
        return 0
    return workers


def warn_without_workers(workers: int, reason: str) -> None:
    """Warn that a thread does the work of worker processes."""
    log.warning("a thread prepares the batches instead of %d loader processes: %s", workers, reason)


def _obstacle(workers: int, needed: int) -> str | None:
    if not Path("/proc/self").exists():  # not Linux: other systems keep the batches elsewhere
        return None
    import resource  # not on Windows

    free = _free_bytes()
    if free < needed:
        return (
            f"{SHARED_MEMORY} has {free >> 10} KiB free, and they need {needed >> 10} KiB; enlarge it, for example "
            "with docker run --shm-size=1g"
        )
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit < _FEW_PROCESSES and limit != resource.RLIM_INFINITY and not _can_fork(2 * workers):
        return f"the system allows no {2 * workers} more processes; raise the limit (ulimit -u)"
    return None


def _free_bytes() -> int:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize if os.access(SHARED_MEMORY, os.W_OK) else 0


def _can_fork(count: int) -> bool:
    """Whether that many processes can be started; tried, because the limit counts all processes of the user."""
    reading, writing = os.pipe()
    children: list[int] = []
    try:
        with warnings.catch_warnings(action="ignore"):  # of threads; the children do nothing
            while len(children) < count:
                child = os.fork()
                if not child:
                    os.close(writing)
                    os.read(reading, 1)
                    os._exit(0)
                children.append(child)
        return True
    except OSError:
        return False
    finally:
        os.close(writing)
        os.close(reading)
        for child in children:
            os.waitpid(child, 0)
