"""The meaning of 255 in masks is decided once for each class, from all its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densemble.data.folder import FolderData
from densemble.errors import DataError

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
    """If 255 means unknown, an image that holds only 255 has no class."""
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
    """In an image without the class, 255 means unknown, as in the other images; on its own it looks black and white."""
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


def test_a_label_map_has_priority(tmp_path: Path) -> None:
    write(tmp_path, [{"crack": white(CRACK), "rust": ones(RUST)}] * 3, False)
    data = FolderData(tmp_path, "multilabel", label_map={255: 1})
    np.testing.assert_array_equal(data.read_target(data.train[0]), np.stack([CRACK, RUST]))


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, [{"crack": white(CRACK)}] * 3, False)
    (tmp_path / "targets" / "crack" / "1.png").write_bytes(b"")
    data = FolderData(tmp_path, "multilabel")
    good = [sample for part in data.layout.splits.values() for sample in part if sample.stem != "1"]
    assert all(np.array_equal(data.read_target(sample)[0], CRACK) for sample in good)


def sparse(folder: Path) -> None:
    """Only masks of classes that occur: both classes in image 0, rust in 1, none in 2, crack in 3."""
    for number, masks in enumerate(({"crack": CRACK, "rust": RUST}, {"rust": RUST}, {}, {"crack": CRACK})):
        save(folder / "images" / f"{number}.png", np.full((12, 16, 3), 20 * number, np.uint8))
        for name, mask in masks.items():
            save(folder / "targets" / name / f"{number}.png", white(mask) if name == "rust" else ones(mask))


@pytest.mark.parametrize("listed", [False, True])
def test_a_missing_mask_is_empty_on_request(listed: bool, tmp_path: Path) -> None:
    sparse(tmp_path)
    if listed:
        (tmp_path / "train.txt").write_text("0\n1\n")
        (tmp_path / "val.txt").write_text("2\n3\n")
    with pytest.raises(DataError, match=r"3 files.*data\.absent_is_empty=true"):
        FolderData(tmp_path, "multilabel")
    told = FolderData(tmp_path, "multilabel", skip_unpaired=True).check()["problems"]
    assert "no mask of the classes crack, rust" in " ".join(problem["message"] for problem in told)
    data = FolderData(tmp_path, "multilabel", absent_is_empty=True)
    found = read(data)
    for stem, (crack, rust) in {"0": (CRACK, RUST), "1": (NONE, RUST), "2": (NONE, NONE), "3": (CRACK, NONE)}.items():
        np.testing.assert_array_equal(found[stem], np.stack([crack, rust]))
        sample = next(one for part in data.layout.splits.values() for one in part if one.stem == stem)
        assert data.read_pair(sample)[1].shape == (2, 12, 16)
    assert data.said == {"absent_is_empty": True} | ({} if listed else data.said)
    assert not [problem for problem in data.check()["problems"] if problem["severity"] == "error"
                and problem["kind"] not in ("constant image", "tiny split", "nothing to score")]  # fmt: skip
    turned = FolderData(tmp_path, "multilabel", absent_is_empty=True, classes=["rust", "crack"])
    np.testing.assert_array_equal(read(turned)["1"], np.stack([RUST, NONE]))


def test_used_masks_are_not_called_unused_where_others_are_absent(tmp_path: Path) -> None:
    sparse(tmp_path)
    told = FolderData(tmp_path, "multilabel", absent_is_empty=True).check()["problems"]
    assert "unused files" not in {problem["kind"] for problem in told}


def test_the_remedy_names_the_values_of_all_classes(tmp_path: Path) -> None:
    write(tmp_path, [{"crack": (128 * CRACK).astype(np.uint8), "rust": ones(RUST)}] * 3, False)
    told = [p for p in FolderData(tmp_path, "multilabel").check()["problems"] if p["kind"] == "mask values"]
    assert told and all("data.label_map={128: 1}" in problem["remedy"] for problem in told)
