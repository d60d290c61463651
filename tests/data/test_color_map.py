"""Colour maps in the formats of common tools."""

from pathlib import Path

import pytest

from densemble.data.color_map import make_color_map
from densemble.errors import DataError

ROAD, TREE = (128, 64, 128), (0, 200, 10)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.json", '{"lane 1": [128, 64, 128], "tree": "#00c80a"}'),
        ("map.csv", "name,r,g,b\nlane 1,128,64,128\ntree,0,200,10\n"),
        ("map.csv", "r;g;b;name\n128;64;128;lane 1\n0;200;10;tree\n"),
        ("label_colors.txt", "128 64 128\tlane 1\n\n# a remark with 3 4 5\n0 200 10\ttree\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nlane 1:128,64,128::\ntree:0,200,10:leaf 1,2:\n"),
    ],
    ids=["json", "csv, name first", "csv, colour first", "camvid", "cvat"],
)
def test_every_form_gives_the_same_map(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert make_color_map(name, tmp_path) == ({ROAD: 0, TREE: 1}, ("lane 1", "tree"))


def test_a_mapping_numbers_the_names_in_their_order() -> None:
    assert make_color_map({"b": "00c80a", "a": [128, 64, 128]}, Path()) == ({TREE: 0, ROAD: 1}, ("b", "a"))


def test_two_colours_of_one_name_are_one_class(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("0 0 0 void\n1 1 1 car\n2 2 2 void\n")
    assert make_color_map("map.txt", tmp_path) == ({(0, 0, 0): 0, (1, 1, 1): 1, (2, 2, 2): 0}, ("void", "car"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,car\n4,5,tree\n", r"line 2 .* has no three numbers"),
        ("1,2,3,car\n\nonly words\n", r"line 3 .* has no three numbers"),
        ("1,2,3,car\n1,2,3,tree\n", r"\[1, 2, 3\] stands for 'car' and 'tree'"),
        ("1,2,300,car\n", r"\[1, 2, 300\] of 'car' is invalid"),
        ("", "names no colour"),
    ],
)
def test_unreadable_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        make_color_map("map.csv", tmp_path)


@pytest.mark.parametrize("value", [5, [1, 2], "#12345", [1, 2, -1], [1.5, 2, 3], None])
def test_invalid_colours_are_named(value: object) -> None:
    with pytest.raises(DataError, match=r"of 'car' is invalid; write \[red, green, blue\]"):
        make_color_map({"car": value}, Path())  # type: ignore[dict-item]


def test_absent_file_and_no_object(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no colour map at 'nowhere\.txt'"):
        make_color_map("nowhere.txt", tmp_path)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DataError, match="no JSON object"):
        make_color_map("list.json", tmp_path)
