"""Reads many files at once."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from densemble.progress.phases import track

T = TypeVar("T")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[T], Result], items: Iterable[T], doing: str = "", unit: str = "files"
) -> list[Result]:
    """Calls a function on each item, in as many threads as there are CPU cores; results keep the order of the items.

    Args:
        function: called in the threads.
        items: arguments.
        doing: name of the phase that counts the items; empty: no phase.
        unit: name of the items in the phase.
    """
    arguments = list(items)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = pool.map(function, arguments)
        return list(track(results, doing, len(arguments), unit) if doing else results)
