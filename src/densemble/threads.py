"""Threads as far as the system allows them."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Thread


def cpu_count() -> int:
    """Number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def is_started(thread: Thread) -> bool:
    """Start a thread; false if the system allows no more of them."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def started_threads(
    count: int, name: str = "densemble", initializer: Callable[[], object] | None = None
) -> ThreadPoolExecutor | None:
    """Start threads, fewer than ``count`` if the system allows no more (limits of processes or of address space).

    Args:
        count: number of threads.
        name: start of their names.
        initializer: called once in each thread.

    Returns:
        The threads, which are running; ``None`` if not even one could be started.
    """
    while count > 0:
        pool, begin = ThreadPoolExecutor(count, name, initializer), Event()
        waiting: list[Future[bool]] = []
        try:
            while len(waiting) < count:  # a waiting thread takes no second job, so that each job starts a thread
                waiting.append(pool.submit(begin.wait))
            begin.set()
            for job in waiting:
                job.result()
            return pool
        except RuntimeError:  # can't start new thread
            begin.set()
            pool.shutdown(wait=True, cancel_futures=True)
            count = len(waiting)
    return None
