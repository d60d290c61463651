"""Tables of points: the same points from every file format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densemble.errors import DataError
from densemble.storage.points import POINT_SUFFIXES, read_point_table

NUMBERS = st.floats(-1e6, 1e6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(points=st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(-5, 300)), max_size=5), labelled=st.booleans())
def test_every_format_gives_the_same_points(
    points: list[tuple[float, float, int]], labelled: bool, tmp_path: Path
) -> None:
    rows = [row if labelled else row[:2] for row in points]
    names = ("x", "y", "label")[: 3 if labelled else 2]
    lines = [",".join(map(repr, row)) for row in rows]
    (tmp_path / "header.csv").write_text("\n".join([",".join(names), *lines]))
    (tmp_path / "plain.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "lists.json").write_text(json.dumps(rows))
    (tmp_path / "objects.json").write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    np.save(tmp_path / "array.npy", np.array(rows).reshape(-1, len(names)))
    for name in ("header.csv", "plain.csv", "lists.json", "objects.json", "array.npy"):
        places, labels = read_point_table(tmp_path / name)
        assert (places.dtype, labels.dtype) == (np.float64, np.int64)
        assert places.tolist() == [list(row[:2]) for row in rows]
        assert labels.tolist() == [row[2] if labelled else 0 for row in points]
        assert Path(name).suffix in POINT_SUFFIXES


@pytest.mark.parametrize(
    "text",
    [
        "x,y,label\n1.5,2,3\n4,5,6\n",
        "\ufeffX, Y, Label\n1.5, 2, 3\n\n4, 5, 6",
        "label;name;y;x\n3;nose;2;1.5\n6;ear;5;4\n",
        "1.5\t2\t3\r\n4\t5\t6\r\n",
        '"x","y","label"\n"1.5","2","3.0"\n4,5,6\n',
    ],
)
def test_csv_dialects(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    places, labels = read_point_table(tmp_path / "p.csv")
    assert places.tolist() == [[1.5, 2], [4, 5]]
    assert labels.tolist() == [3, 6]


@pytest.mark.parametrize("content", ["", "\n", "x,y\n", "x,y,label"])
@pytest.mark.parametrize("suffix", [".csv", ".json", ".npy"])
def test_empty_files_have_no_points(content: str, suffix: str, tmp_path: Path) -> None:
    content = content if suffix == ".csv" else "[]" if content and suffix == ".json" else ""
    (tmp_path / f"p{suffix}").write_text(content)
    places, labels = read_point_table(tmp_path / f"p{suffix}")
    assert (places.shape, labels.shape) == ((0, 2), (0,))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.csv", "x,y\n1,2\n3,nan\n", r"point 2 .* not finite"),
        ("p.csv", "x,y\n1,2\n3,four\n", r"line 3 .* '3,four'"),
        ("p.csv", "x,y\n1\n", r"line 2"),
        ("p.csv", "1,2\n1,2,3\n", r"rows of \[2, 3\] numbers"),
        ("p.csv", "1\n2\n", r"rows of \[1\] numbers"),
        ("p.csv", "a,b\n1,2\n", r"line 1"),
        ("p.csv", "x,y,label\n1,2,0.5\n", r"whole numbers"),
        ("p.csv", b"\xff\xfe\x00", r"p\.csv"),
        ("p.json", "[[1, 2], [3, Infinity]]", "Infinity is not a JSON number"),
        ("p.json", '[{"x": 1}]', r"neither \[x, y\]"),
        ("p.json", '[["1", 2]]', r"neither \[x, y\]"),
        ("p.json", "[[true, 2]]", r"neither \[x, y\]"),
        ("p.json", '{"x": 1}', r"not a JSON list"),
        ("p.json", f"[[1{'0' * 400}, 2]]", r"p\.json"),
        ("p.json", "[[1, 2", r"p\.json"),
        ("p.json", "[" * 100_000, r"p\.json"),
        ("p.npy", b"\x93NUMPY", r"p\.npy"),
        ("p.txt", "1,2", r"\.csv, \.json, \.npy"),
    ],
)
def test_tables_that_cannot_be_used(name: str, content: Any, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=told):
        read_point_table(tmp_path / name)


@pytest.mark.parametrize("values", [np.ones(4), np.ones((2, 4)), np.ones((2, 2, 2)), np.array([["a", "b"]])])
def test_arrays_that_are_no_points(values: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", values)
    with pytest.raises(DataError, match=r"p\.npy"):
        read_point_table(tmp_path / "p.npy")


def test_absent_points(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_point_table(tmp_path / "absent.csv")
