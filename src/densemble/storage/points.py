"""Read tables of points (keypoints and fixations) from CSV, JSON or NPY files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage.arrays import array_header, read_array
from densemble.storage.pixels import read_signature
from densemble.untrusted import MOST_DATA_BYTES, decoded, excerpt, parse_json, read_regular

_Rows = Sequence[Sequence[float] | Array]
POINT_SUFFIXES = (".csv", ".json", ".npy")
_COLUMNS = ("x", "y", "label")
_DELIMITERS = ",;\t"


def read_point_table(path: Path) -> tuple[Array, Array]:
    """Read points and their labels.

    A CSV has the columns x, y and optionally label, separated by commas, semicolons or tabs. A header may change the
    order of the columns. A JSON file is a list of ``[x, y]`` or ``[x, y, label]``, or of objects with these keys. An
    NPY holds ``(N, 2)`` or ``(N, 3)``. The default label is 0; an empty file has no points.

    Returns:
        Points as float64 ``(N, 2)``, x to the right and y down in image pixels, and labels as int64 ``(N,)``.

    Raises:
        DataError: the file does not exist or is unreadable, the shape is wrong, a coordinate is not finite, or a label
            is not an integer.
    """
    if path.suffix.lower() not in POINT_SUFFIXES:
        raise DataError(f"points '{path}' have an unknown format; save them as {', '.join(POINT_SUFFIXES)}")
    try:
        rows = _rows(path)
    except (OSError, ValueError, OverflowError, RecursionError, csv.Error) as error:
        raise DataError(f"cannot read points '{path}': {error}; save them as x,y[,label]") from error
    return _checked(path, rows)


def is_point_array(path: Path) -> bool:
    """Whether an NPY holds rows of two or three numbers, from its header; maps are wider."""
    try:
        shape, _ = array_header(path, ())
    except DataError:
        return False  # the error is reported when the file is read
    return len(shape) == 2 and shape[1] in (2, 3)


def _rows(path: Path) -> _Rows:
    if not read_signature(path):
        return []
    match path.suffix.lower():
        case ".npy":
            return _array_rows(path)
        case ".json":
            return [_json_row(path, row) for row in _json_list(path)]
        case _:
            return _csv_rows(path)


def _checked(path: Path, rows: _Rows) -> tuple[Array, Array]:
    widths = {len(row) for row in rows}
    if len(widths) > 1 or not widths <= {2, 3}:
        raise DataError(
            f"points '{path}' have rows of {sorted(widths)} numbers; give every point x, y and optionally a label"
        )
    table = np.array(rows, np.float64).reshape(len(rows), *widths or (2,))
    for number, row in enumerate(table):
        if not np.isfinite(row).all():
            raise DataError(f"point {number + 1} of '{path}' is not finite: {row.tolist()}; correct or remove it")
    labels = table[:, 2] if table.shape[1] == 3 else np.zeros(len(table))
    if not np.array_equal(labels, np.round(labels)):
        raise DataError(f"points '{path}' have labels that are not whole numbers; number the classes 0, 1, 2")
    return table[:, :2].copy(), labels.astype(np.int64)


def _array_rows(path: Path) -> list[Array]:
    values = read_array(path, ())
    if values.size and values.ndim != 2:
        raise DataError(f"points '{path}' have the shape {values.shape}, expected (N, 2) or (N, 3)")
    return list(values.astype(np.float64))


def _json_list(path: Path) -> list[Any]:
    values = parse_json(decoded(read_regular(path, MOST_DATA_BYTES)))
    if not isinstance(values, list):
        raise DataError(f'points \'{path}\' are not a JSON list; write [[x, y], ...] or [{{"x": 1, "y": 2}}, ...]')
    return values


def _json_row(path: Path, row: Any) -> list[float]:
    if isinstance(row, dict) and {"x", "y"} <= row.keys():
        row = [row[name] for name in _COLUMNS if name in row]
    if not isinstance(row, list) or not all(type(number) in (int, float) for number in row):
        raise DataError(f'points \'{path}\' hold {row!r:.80}, which is neither [x, y] nor {{"x": ..., "y": ...}}')
    return [float(number) for number in row]


def _csv_rows(path: Path) -> list[list[float]]:
    lines = decoded(read_regular(path, MOST_DATA_BYTES)).splitlines()
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    names = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    columns = [names.index(name) for name in _COLUMNS if name in names]
    has_header = {"x", "y"} <= set(names)
    rows = []
    for number, cells in enumerate(csv.reader(lines, delimiter=delimiter), start=1):
        if not any(cell.strip() for cell in cells) or (has_header and [c.strip().lower() for c in cells] == names):
            continue
        try:
            rows.append([float(cells[index]) for index in columns] if has_header else [float(cell) for cell in cells])
        except (ValueError, IndexError) as error:
            raise DataError(
                f"line {number} of points '{path}' is '{excerpt(delimiter.join(cells))}', expected numbers x,y[,label] "
                "with or without a header x,y[,label]"
            ) from error
    return rows
