"""Spreadsheets compute no cell of a file of densemble; numbers stay numbers."""

import csv
import io

import pytest

from densemble.storage.csv_cells import csv_cell, write_csv


@pytest.mark.parametrize("text", ["=1+2.png", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "-"])
def test_a_formula_becomes_text(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1.5", "+3", "-inf", "1e-5", -1.5, 0, None, "a=b.png", "", "photos/-1.png"])
def test_everything_else_stays(value: object) -> None:
    assert csv_cell(value) is value


def test_rows(tmp_path: object) -> None:
    file = io.StringIO()
    write_csv(file, [["name", "x"], ["=1", -2.5], ["a,b\n", None]])
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [["name", "x"], ["'=1", "-2.5"], ["a,b\n", ""]]
