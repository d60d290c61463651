"""The ignored label: 255 only if it is not set and not a class; it is always reported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from densemble.data.decoded_cache import DecodedSplit
from densemble.data.folder import FolderData
from densemble.engines import local
from densemble.errors import DataError
from densemble.tasks import MultilabelTask, SegmentationTask, Task, make_task

Array = np.ndarray[Any, Any]
BLOCKS = np.repeat(np.repeat(np.array([[0, 1, 2], [2, 0, 1]]), 20, 0), 20, 1)


def write(folder: Path, *maps: Array, classes: int = 0) -> Path:
    for number, target in enumerate(maps * (4 // len(maps))):
        for kind, pixels in (("images", np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)),
                             ("targets", target)):  # fmt: skip
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / kind / f"{number}.tif", pixels)
    if classes:
        (folder / "classes.txt").write_text("\n".join(f"c{number}" for number in range(classes)))
    return folder


def numbered(zero: int, one: int, two: int, dtype: str) -> Array:
    return np.array([zero, one, two]).astype(dtype)[BLOCKS]


def problems(folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    return {problem["kind"]: problem for problem in FolderData(folder, "segmentation", **options).check()["problems"]}


@pytest.mark.parametrize("named", [True, False])
def test_a_class_255_among_300_is_a_class(named: bool, tmp_path: Path) -> None:
    every = numbered(0, 255, 299, "uint16")
    write(tmp_path, every, classes=300 if named else 0)
    data = FolderData(tmp_path, "segmentation")
    assert data.task.out_channels == 300 and data.task.describe()["ignore_index"] == 65535
    np.testing.assert_array_equal(data.read_target(data.train[0]), every)
    train = FolderData(tmp_path, "segmentation").check()["splits"]["train"]
    assert train["class_share"]["c255" if named else "255"] == pytest.approx(1 / 3, abs=1e-6)
    assert (train["ignored_label"], train["ignored_share"]) == (65535, 0)
    assert FolderData(tmp_path, "segmentation", ignore_index=255).ignore_index == 255


@pytest.mark.parametrize("highest", [299, 255])
def test_a_class_255_stays_a_class_of_the_task(highest: int, tmp_path: Path) -> None:
    """Also if the scored targets do not show that there are more than 255 classes."""
    labels = numbered(0, 255, highest, "uint16")
    task = make_task({"name": "segmentation", "classes": [str(number) for number in range(300)]})
    data = FolderData(write(tmp_path, labels), "segmentation").numbered_as(task)
    np.testing.assert_array_equal(data.read_target(data.train[0]), labels)


def test_an_ignored_label_becomes_that_of_a_task(tmp_path: Path) -> None:
    labels = numbered(0, 1, 255, "uint8")
    task = make_task({"name": "segmentation", "classes": ["a", "b"], "ignore_index": 7})
    data = FolderData(write(tmp_path, labels), "segmentation").numbered_as(task)
    np.testing.assert_array_equal(data.read_target(data.train[0]), numbered(0, 1, 7, "uint8"))


def test_a_task_of_many_classes_ignores_none_by_default() -> None:
    names = [str(number) for number in range(300)]
    assert make_task({"name": "segmentation", "classes": names}).fill == 65535
    assert make_task({"name": "segmentation", "classes": names[:255]}).fill == 255
    assert make_task({"name": "segmentation", "classes": names, "ignore_index": 255}).fill == 255


VOID = [("uint16", 65535), ("uint32", 4294967295), ("int32", 2147483647), ("int16", 9999)]


@pytest.mark.parametrize(("dtype", "void"), VOID)
def test_a_void_label_is_ignored_and_is_no_class(dtype: str, void: int, tmp_path: Path) -> None:
    labels = numbered(0, 1, 2, dtype)
    labels[:8] = void
    write(tmp_path, labels)
    facts = FolderData(tmp_path, "segmentation").check()
    (found,) = [problem for problem in facts["problems"] if problem["severity"] == "error"]
    assert (found["kind"], found["remedy"]) == ("void label", f"ignore it: --set data.ignore_index={void}")
    assert "20.0%" in found["message"] and facts["classes"] == ["0", "1", "2"]
    with pytest.raises(DataError, match=f"data.ignore_index={void}"):
        _ = FolderData(tmp_path, "segmentation").task
    data = FolderData(tmp_path, "segmentation", ignore_index=void)
    task, target = data.task, data.read_target(data.train[0])
    assert task.out_channels == 3 and data.check()["ok"]
    np.testing.assert_array_equal(target == task.fill, labels == void)
    again = FolderData(tmp_path, "segmentation", **{**data.said, "ignore_index": int(task.fill)})
    np.testing.assert_array_equal(again.read_target(again.train[0]), target)


@pytest.mark.parametrize(("dtype", "void"), VOID)
def test_beside_named_classes_too(dtype: str, void: int, tmp_path: Path) -> None:
    labels = numbered(0, 1, 2, dtype)
    labels[:8] = void
    found = problems(write(tmp_path, labels, classes=3))["labels outside classes"]
    assert found["remedy"] == f"if it means unknown, ignore it: --set data.ignore_index={void}"
    assert FolderData(tmp_path, "segmentation", ignore_index=void).check()["ok"]


def test_another_label_is_not_ignored_if_255_occurs(tmp_path: Path) -> None:
    labels = numbered(0, 1, 2, "uint16")
    labels[:8], labels[8:10] = 65535, 255
    assert "data.label_map={65535: 255}" in problems(write(tmp_path, labels))["void label"]["remedy"]


def test_sixteen_bit_white_is_a_class(tmp_path: Path) -> None:
    write(tmp_path, numbered(0, 65535, 0, "uint16"))
    facts = FolderData(tmp_path, "segmentation").check()
    (found,) = [problem for problem in facts["problems"] if problem["severity"] == "error"]
    assert "data.label_map={65535: 1}" in found["remedy"] and not facts["classes"]
    assert FolderData(tmp_path, "segmentation", label_map={65535: 1}).check()["ok"]


@pytest.mark.parametrize("options", [{}, {"label_map": {1: 2, 2: 1}}, {"ignore_index": 0}])
def test_nan_among_labels_is_ignored(options: dict[str, Any], tmp_path: Path) -> None:
    labels = numbered(0, 1, 2, "float32")
    plain = write(tmp_path / "plain", labels)
    labels[:8] = np.nan
    data = FolderData(write(tmp_path / "holes", labels), "segmentation", **options)
    target = data.read_target(data.train[0])
    assert (target[:8] == data.ignore_index).all() and data.check()["ok"]
    before = FolderData(plain, "segmentation", **options)
    np.testing.assert_array_equal(target[8:], before.read_target(before.train[0])[8:])


@pytest.mark.parametrize("label_map", [None, {255: 1}, {1: 1}])
def test_nan_in_masks_is_unknown(label_map: dict[int | str, int | str] | None, tmp_path: Path) -> None:
    masks = np.stack([BLOCKS == 1, BLOCKS == 2]).astype(np.float32)
    masks[:, :8] = np.nan
    write(tmp_path, masks)
    data = FolderData(tmp_path, "multilabel", label_map=label_map)
    np.testing.assert_array_equal(data.read_target(data.train[0]), np.where(np.isnan(masks), 255, masks))


@pytest.mark.parametrize("task", ["segmentation", "multilabel"])
def test_a_map_in_the_alpha_channel_has_the_remedy(task: str, tmp_path: Path) -> None:
    write(tmp_path, numbered(0, 1, 2, "uint8"))
    for path in (tmp_path / "targets").iterdir():
        path.unlink()
        hidden = np.full((*BLOCKS.shape, 4), 255, np.uint8)
        hidden[..., 3] = BLOCKS
        Image.fromarray(hidden).save(path.with_suffix(".png"))
    found = FolderData(tmp_path, task).check()["problems"]
    assert {(problem["kind"], problem["remedy"]) for problem in found if problem["severity"] == "error"} == {
        ("unusable map", "save that channel alone as a grey PNG")
    }


@pytest.mark.parametrize("ignored", [-1, -100])
def test_a_negative_label_can_be_ignored(ignored: int, tmp_path: Path) -> None:
    write(tmp_path, numbered(0, 1, ignored, "int16"))
    data = FolderData(tmp_path, "segmentation", ignore_index=ignored)
    np.testing.assert_array_equal(data.read_target(data.train[0]), numbered(0, 1, 255, "uint8"))


def test_255_in_most_pixels_is_reported(tmp_path: Path) -> None:
    cup = numbered(255, 128, 0, "uint8")
    cup[:20, :20] = cup[20:, 20:] = 255
    write(tmp_path, cup)
    raw = problems(tmp_path)["gaps in labels"]
    assert "label 255, which is ignored, covers" in raw["message"]
    assert raw["remedy"] == "number them from 0: --set 'data.label_map={128: 1, 255: 2}'"
    found = problems(tmp_path, label_map={128: 1})["mostly ignored"]
    assert found["severity"] == "warning" and f"{(cup == 255).mean():.0%}" in found["message"]
    assert "data.label_map={128: 1, 255: 2}" in found["remedy"] and "data.ignore_index=255" in found["remedy"]
    assert "mostly ignored" not in problems(tmp_path, label_map={128: 1, 255: 2})


def test_a_little_255_may_be_a_class_too(tmp_path: Path) -> None:
    cup = numbered(0, 128, 0, "uint8")
    cup[:5] = 255
    remedy = problems(write(tmp_path, cup))["gaps in labels"]["remedy"]
    assert "{128: 1}" in remedy and "or if 255 is a class too: --set 'data.label_map={128: 1, 255: 2}'" in remedy


def test_black_and_white_maps_among_others(tmp_path: Path) -> None:
    write(tmp_path, numbered(0, 1, 0, "uint8"), numbered(0, 255, 0, "uint8"))
    found = problems(tmp_path)["0/255 mask"]
    assert "data.label_map={255: 1}" in found["remedy"] and "data.ignore_index=255" in found["remedy"]
    assert "0/255 mask" not in problems(tmp_path, ignore_index=255)
    assert "0/255 mask" not in problems(tmp_path, label_map={255: 1})


@pytest.mark.parametrize(
    ("task", "shape"),
    [(SegmentationTask(("a", "b"), ignore_index=7), (1, 4, 5)), (MultilabelTask(("a", "b")), (1, 2, 4, 5))],
)
def test_training_reports_the_ignored_label(task: Task, shape: tuple[int, ...], lines: list[str]) -> None:
    targets = np.zeros(shape, np.uint8)
    split = DecodedSplit(targets, targets, ("a",))
    training: Any = type("Training", (), {"task": task})
    local._report_ignored(training, split)
    assert lines == [f"label {task.fill:.0f} is ignored: 0.0% of the training pixels"]
    targets[..., :2, :] = int(task.fill)
    local._report_ignored(training, split)
    assert lines[1] == f"label {task.fill:.0f} is ignored: 50.0% of the training pixels"
