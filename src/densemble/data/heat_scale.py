"""Decides which value of heat counts as 1, once for all targets of a data set and for each data type."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from densemble.data.parallel import map_in_threads
from densemble.data_options import HeatMax
from densemble.errors import DataError
from densemble.progress.phases import phase
from densemble.shapes import Array
from densemble.storage import images as codec
from densemble.threads import cpu_count

WHOLE_LIMITS = (1.0, 255.0, 65535.0)
"""Limits for whole numbers: the first limit that no target of the data set exceeds counts as 1."""

_FULL_SCALES = {"uint8": 255.0, "uint16": 65535.0}


def number_type(path: Path) -> str:
    """Name of the data type of a file; all floating-point types are ``float``.

    Raises:
        DataError: the file is missing, damaged or no image.
    """
    dtype = codec.number_type(path)
    return "float" if dtype.kind == "f" else dtype.name


def find_heat_max(files: Iterable[Path], read: Callable[[Path], Array]) -> dict[str, float]:
    """The value that counts as 1, by data type; unreadable files are ignored.

    Args:
        files: all targets of a data set.
        read: reads the stored values of a target.
    """
    by_type: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        try:
            by_type[number_type(file)].append(file)
        except DataError:  # the data check reports it
            continue
    return {name: _full_scale(name, _peaks(paths, read)) for name, paths in sorted(by_type.items())}


def _peaks(files: list[Path], read: Callable[[Path], Array]) -> Iterator[tuple[float, bool]]:
    """The highest value of each target, and whether all its values are whole numbers."""

    def measure(file: Path) -> tuple[float, bool]:
        try:
            values = read(file)
        except DataError:
            return 0.0, True
        known = values[np.isfinite(values)]
        return float(known.max(initial=0)), bool((known == np.round(known)).all())

    count = 4 * cpu_count()
    with phase("reading targets", len(files), "files") as reading:
        for start in range(0, len(files), count):
            yield from map_in_threads(measure, files[start : start + count])
            reading.advance(len(files[start : start + count]))


def _full_scale(name: str, peaks: Iterator[tuple[float, bool]]) -> float:
    """The value that counts as 1; stops reading when further targets cannot change the result."""
    most = _FULL_SCALES.get(name)
    highest, whole = 0.0, True
    for peak, is_whole in peaks:
        highest, whole = max(highest, peak), whole and is_whole
        if most is not None and highest > max(limit for limit in WHOLE_LIMITS if limit < most):
            return most
    if whole:
        return next((limit for limit in WHOLE_LIMITS if highest <= limit), highest)
    return max(highest, 1.0)


def heat_max_of(given: HeatMax | None, name: str) -> float:
    """The value that counts as 1 in targets of a data type; types that are not in ``given`` use their full scale."""
    if isinstance(given, Mapping):
        given = given.get(name)
    return given or _FULL_SCALES.get(name, 1.0)


def told(given: HeatMax) -> str:
    """Describes the value that counts as 1."""
    if not isinstance(given, Mapping):
        return f"{given:g} counts as 1"
    return ", ".join(f"{value:g} counts as 1 in maps of {name}" for name, value in given.items())
