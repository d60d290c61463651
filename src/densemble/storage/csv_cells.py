"""CSV for people: a cell that a spreadsheet would compute as a formula is marked as text."""

import csv
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TextIO

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are full-width


def csv_cell(value: object) -> object:
    """Return a text that begins like a formula with an apostrophe before it; numbers, also as text, do not change."""
    if not isinstance(value, str) or not value.startswith(_FORMULAS):
        return value
    with suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def write_csv(file: TextIO, rows: Iterable[Sequence[object]]) -> None:
    """Write rows of cells, see :func:`csv_cell`."""
    csv.writer(file, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
