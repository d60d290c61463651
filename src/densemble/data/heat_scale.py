"""Which value of a map of heat counts as 1: decided once for all maps of a data set, for each type of numbers."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from densemble.data_options import HeatMax
from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage import images as codec

WHOLE_LIMITS = (1.0, 255.0, 65535.0)
"""Whole numbers are heat of 1, 8 or 16 bits: the first of these that no map of the data set exceeds counts as 1."""


def number_type(path: Path) -> str:
    """Name of the type that a file's numbers have, all floats as ``float``.

    Raises:
        DataError: absent, damaged or no image.
    """
    dtype = codec.number_type(path)
    return "float" if dtype.kind == "f" else dtype.name


def find_heat_max(files: Iterable[Path], read: Callable[[Path], Array]) -> dict[str, float]:
    """The value that counts as 1, by type of numbers; files that cannot be read say nothing.

    Args:
        files: all maps of a data set.
        read: the numbers of a map, in the file's own unit.
    """
    by_type: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        try:
            by_type[number_type(file)].append(file)
        except DataError:  # the check names it
            continue
    return {name: _full_scale(name, _peaks(same, read)) for name, same in sorted(by_type.items())}


def _peaks(files: list[Path], read: Callable[[Path], Array]) -> Iterator[tuple[float, bool]]:
    """The highest number of each map, and whether all its numbers are whole."""

    def one(file: Path) -> tuple[float, bool]:
        try:
            values = read(file)
        except DataError:
            return 0.0, True
        known = values[np.isfinite(values)]
        return float(known.max(initial=0)), bool((known == np.round(known)).all())

    count = os.cpu_count() or 1
    with ThreadPoolExecutor(max_workers=count) as pool:
        for start in range(0, len(files), 4 * count):
            yield from pool.map(one, files[start : start + 4 * count])


def _full_scale(name: str, peaks: Iterator[tuple[float, bool]]) -> float:
    """Stops reading where no further map can change the answer."""
    most = {"uint8": 255.0, "uint16": 65535.0}.get(name)
    highest, whole = 0.0, True
    for peak, is_whole in peaks:
        highest, whole = max(highest, peak), whole and is_whole
        if most is not None and highest > max(limit for limit in WHOLE_LIMITS if limit < most):
            return most
    if whole:
        return next((limit for limit in WHOLE_LIMITS if highest <= limit), highest)
    return max(highest, 1.0)


def heat_max_of(given: HeatMax | None, name: str) -> float:
    """The value that counts as 1 in maps of a type that may not have been there when it was decided."""
    if given is None or not isinstance(given, Mapping):
        return given or {"uint8": 255.0, "uint16": 65535.0}.get(name, 1.0)
    return given[name] if name in given else heat_max_of(None, name)


def told(given: HeatMax) -> str:
    """What counts as 1, in words."""
    if not isinstance(given, Mapping):
        return f"{given:g} counts as 1"
    return ", ".join(f"{value:g} counts as 1 in maps of {name}" for name, value in given.items())
