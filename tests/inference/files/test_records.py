"""Paths of images in files that describe a whole folder."""

from pathlib import PurePath, PurePosixPath, PureWindowsPath

import pytest

from densemble.inference.files.records import paths_in_file


@pytest.mark.parametrize("kind", [PurePosixPath, PureWindowsPath])
def test_paths_are_relative_to_the_deepest_common_folder(kind: type[PurePath]) -> None:
    root = kind("C:/data") if kind is PureWindowsPath else kind("/data")
    one, two, above = root / "a" / "1.png", root / "a" / "b" / "2.png", root / "3.png"
    assert paths_in_file([("1", one), ("0", None), ("2", two)]) == {"1": "1.png", "0": "0", "2": "b/2.png"}
    assert paths_in_file([("1", one), ("3", above)]) == {"1": "a/1.png", "3": "3.png"}
    assert paths_in_file([("1", one)]) == {"1": "1.png"}
    assert paths_in_file([("0", None)]) == {"0": "0"}


def test_paths_on_several_drives_are_absolute() -> None:
    images = [("1", PureWindowsPath("C:/data/1.png")), ("2", PureWindowsPath("D:/2.png"))]
    assert paths_in_file(images) == {"1": "C:/data/1.png", "2": "D:/2.png"}


def test_folders_of_windows_are_equal_in_any_case() -> None:
    images = [("1", PureWindowsPath("C:/Data/1.png")), ("2", PureWindowsPath("c:/data/b/2.png"))]
    assert paths_in_file(images) == {"1": "1.png", "2": "b/2.png"}
