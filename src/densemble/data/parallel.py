"""Reads many files at once."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[T], Result], items: Iterable[T]) -> list[Result]:
    """Calls a function on each item, in as many threads as there are CPU cores; results keep the order of the items."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(function, items))
