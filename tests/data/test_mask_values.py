"""What 255 means in masks: one answer for each class, from all its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densemble.data.folder import FolderData

Array = np.ndarray[Any, Any]
CRACK, RUST = np.zeros((2, 12, 16), bool)
CRACK[2:5, 3:9], RUST[6:10, 8:14] = True, True
NONE = np.zeros((12, 16), bool)


def save(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def write(folder: Path, planes: list[dict[str, Array]], one_file: bool) -> FolderData:
    for number, masks in enumerate(planes):
        save(folder / "images" / f"{number}.png", np.full((12, 16, 3), 20 * number, np.uint8))
        if one_file:
            save(folder / "targets" / f"{number}.npy", np.stack(list(masks.values()), -1))
        else:
            for name, mask in masks.items():
                save(folder / "targets" / name / f"{number}.png", mask)
    return FolderData(folder, "multilabel")


def read(data: FolderData) -> dict[str, Array]:
    samples = [sample for part in data.layout.splits.values() for sample in part]
    return {sample.image.stem: data.read_target(sample) for sample in samples}


def kinds(data: FolderData) -> set[str]:
    return {problem["kind"] for problem in data.check()["problems"]}


def white(mask: Array) -> Array:
    return mask.astype(np.uint8) * 255


def ones(mask: Array) -> Array:
    return mask.astype(np.uint8)


def test_strata_are_drawn_by_the_same_encoding(tmp_path: Path) -> None:
    """Where 255 is unknown, a picture that holds nothing else is of no class."""
    border = ones(CRACK)
    border[0] = 255
    data = write(tmp_path, [{"crack": border}] * 2 + [{"crack": white(RUST)}] * 2, True)
    data = FolderData(tmp_path, "multilabel", stratify=True, val_fraction=0.5)
    assert {stem for stem in ("0", "1") if stem in {sample.stem for sample in data.train}} in ({"0"}, {"1"})


@pytest.mark.parametrize("one_file", [False, True])
def test_each_class_has_its_own_encoding(one_file: bool, tmp_path: Path) -> None:
    data = write(tmp_path, [{"crack": white(CRACK), "rust": ones(RUST)}] * 3, one_file)
    for target in read(data).values():
        np.testing.assert_array_equal(target, np.stack([CRACK, RUST]))


@pytest.mark.parametrize("one_file", [False, True])
def test_the_encoding_of_a_class_is_that_of_all_its_files(one_file: bool, tmp_path: Path) -> None:
    """In a picture without the class 255 is unknown, as in the others: it alone looks like black and white."""
    border = ones(CRACK)
    border[0] = 255
    unknown = white(NONE)
    unknown[0] = 255
    data = write(tmp_path, [{"crack": border}, {"crack": unknown}, {"crack": ones(CRACK)}, {"crack": border}], one_file)
    assert set(np.unique(read(data)["1"])) == {0, 255}
    np.testing.assert_array_equal(read(data)["0"][0], border)
    assert "mixed masks" not in kinds(data)


def test_black_and_white_files_among_others_of_a_class_are_reported(tmp_path: Path) -> None:
    data = write(tmp_path, [{"crack": white(CRACK)}, {"crack": ones(CRACK)}, {"crack": ones(CRACK)}], False)
    for target in read(data).values():
        np.testing.assert_array_equal(target[0], CRACK)
    assert "mixed masks" in kinds(data)
    unknown = FolderData(tmp_path, "multilabel", label_map={255: 255})
    assert set(np.unique(read(unknown)["0"])) == {0, 255} and "mixed masks" not in kinds(unknown)


def test_what_a_label_map_says_counts(tmp_path: Path) -> None:
    write(tmp_path, [{"crack": white(CRACK), "rust": ones(RUST)}] * 3, False)
    data = FolderData(tmp_path, "multilabel", label_map={255: 1})
    np.testing.assert_array_equal(data.read_target(data.train[0]), np.stack([CRACK, RUST]))


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, [{"crack": white(CRACK)}] * 3, False)
    (tmp_path / "targets" / "crack" / "1.png").write_bytes(b"")
    data = FolderData(tmp_path, "multilabel")
    good = [sample for part in data.layout.splits.values() for sample in part if sample.stem != "1"]
    assert all(np.array_equal(data.read_target(sample)[0], CRACK) for sample in good)
