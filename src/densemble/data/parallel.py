"""Reads many files at once."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from densemble.progress.phases import track
from densemble.storage.decoding_memory import is_kept_in_memory, kept_in_memory
from densemble.threads import cpu_count, started_threads

T = TypeVar("T")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[T], Result], items: Iterable[T], doing: str = "", unit: str = "files"
) -> list[Result]:
    """Calls a function on each item, in as many threads as there are CPU cores; results keep the order of the items.

    The images that the threads work on share a budget of memory. If the system allows no threads, the calling thread
    does the work.

    Args:
        function: called in the threads.
        items: arguments.
        doing: name of the phase that counts the items; empty: no phase.
        unit: name of the items in the phase.
    """
    arguments = list(items)

    def call(argument: T) -> Result:
        with kept_in_memory():
            return function(argument)

    def counted(results: Iterable[Result]) -> list[Result]:
        return list(track(results, doing, len(arguments), unit) if doing else results)

    # A thread that waits for other threads must not hold memory that they wait for.
    threads = min(cpu_count(), len(arguments)) if not is_kept_in_memory() else 0
    pool = started_threads(threads) if threads > 1 else None
    if pool is None:
        return counted(map(call, arguments))
    with pool:
        return counted(pool.map(call, arguments))
