"""Several calls at once, each with one thread, instead of one after the other with all threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Result = TypeVar("Result")


def side_by_side(calls: Sequence[Callable[[], Result]], threads: int) -> list[Result]:
    """What each call returns, in their order; ``threads`` of them run at a time, each with one thread of PyTorch.

    The calls see the gradient mode of the caller. All have ended when this returns, or raises the first exception.
    """
    with_gradient, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(call: Callable[[], Result]) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(with_gradient and not inference):
            return call()

    futures = [_pool(threads).submit(run, call) for call in calls]
    wait(futures)
    return [future.result() for future in futures]


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay; the number of threads of the caller is left as it is."""
    before = torch.get_num_threads()
    started = Barrier(threads)
    pool = ThreadPoolExecutor(threads, "side-by-side", _take_one_thread)
    wait([pool.submit(started.wait) for _ in range(threads)])  # so that every thread has been started
    torch.set_num_threads(before)
    return pool


def _take_one_thread() -> None:
    torch.get_num_threads()  # a thread takes over the setting of the whole process when it first looks at it
    torch.set_num_threads(1)
