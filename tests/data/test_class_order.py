"""Classes that are requested in another order than in the data set are matched by name."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from densemble.data.class_order import label_map_by_name
from densemble.data.folder import FolderData
from densemble.data.layouts import Layout
from densemble.data.layouts.voc import VOC_CLASSES
from densemble.ensemble.combination import Combination
from densemble.errors import DataError
from densemble.evaluation.scores import evaluate
from densemble.tasks import MultilabelTask, SegmentationTask

SIZE = (12, 16)
NAMES = ("background", "bus", "car", "tree")
REQUESTED = ["background", "tree", "bus", "car"]
Array = np.ndarray[Any, Any]


def region(name: str) -> Array:
    """The region of a class: blocks that do not touch."""
    mask = np.zeros(SIZE, bool)
    column = {"bus": 1, "car": 6, "tree": 11}.get(name)
    if column is None:
        return ~(region("bus") | region("car") | region("tree"))
    mask[2:9, column : column + 3] = True
    return mask


def numbered(order: tuple[str, ...]) -> Array:
    return np.select([region(name) for name in order], range(len(order))).astype(np.uint8)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def images(folder: Path) -> None:
    for stem in ("a", "b"):
        write(folder / f"{stem}.png", np.full((*SIZE, 3), 90, np.uint8))


def runs(mask: Array) -> list[int]:
    """Run lengths of a flat mask; the first run is off."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])))
    return np.diff([0, *edges]).tolist()


def coco(folder: Path, order: tuple[str, ...]) -> None:
    images(folder / "images")
    shapes = {name: {"size": SIZE, "counts": runs(region(name).T)} for name in order[1:]}
    annotations = [
        {"image_id": image, "category_id": 10 * number, "segmentation": shapes[name], "area": 21}
        for image in (0, 1)
        for number, name in enumerate(order[1:])
    ]
    entries = [{"id": n, "file_name": f"{stem}.png", "height": 12, "width": 16} for n, stem in enumerate("ab")]
    categories = [{"id": 10 * number, "name": name} for number, name in enumerate(order[1:])]
    write(folder / "all.json", {"images": entries, "annotations": annotations, "categories": categories})


def cvat(folder: Path, order: tuple[str, ...]) -> None:
    images(folder / "images")
    labels = "".join(f"<label><name>{name}</name></label>" for name in order[1:])
    box = 'left="0" top="0" width="16" height="12"'
    rle = {name: ", ".join(map(str, runs(region(name)))) for name in order[1:]}
    masks = "".join(f'<mask label="{name}" rle="{text}" {box}/>' for name, text in rle.items())
    shown = "".join(f'<image name="{stem}.png" width="16" height="12">{masks}</image>' for stem in "ab")
    write(folder / "annotations.xml", f"<annotations><meta><labels>{labels}</labels></meta>{shown}</annotations>")


def label_studio(folder: Path, order: tuple[str, ...]) -> None:
    pytest.importorskip("pycocotools.mask")
    images(folder / "images")
    results = []
    for name in order[1:]:
        (top, bottom), (left, right) = ((places.min(), places.max() + 1) for places in np.nonzero(region(name)))
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        value = {"points": [[100 * x / 16, 100 * y / 12] for x, y in corners], "polygonlabels": [name]}
        results.append({"original_width": 16, "original_height": 12, "from_name": "tag", "to_name": "image",
                        "type": "polygonlabels", "value": value})  # fmt: skip
    tasks = [{"id": 1, "data": {"image": f"/{s}.png"}, "annotations": [{"id": 1, "result": results}]} for s in "ab"]
    write(folder / "exporters.json", tasks)


def label_files(folder: Path, order: tuple[str, ...]) -> None:
    images(folder / "images")
    for stem in "ab":
        write(folder / "targets" / f"{stem}.png", numbered(order))
    write(folder / "classes.txt", "\n".join(order))


def colours(folder: Path, order: tuple[str, ...]) -> None:
    images(folder / "images")
    for stem in "ab":
        write(folder / "masks" / f"{stem}.png", np.stack([80 * numbered(order)] * 3, -1))
    write(
        folder / "class_dict.csv",
        "name,r,g,b\n" + "".join(f"{n},{80 * i},{80 * i},{80 * i}\n" for i, n in enumerate(order)),
    )


def nnunet(folder: Path, order: tuple[str, ...]) -> None:
    images(folder / "store")
    for stem in "ab":
        write(folder / "imagesTr" / f"{stem}_0000.png", np.full((*SIZE, 3), 90, np.uint8))
        write(folder / "labelsTr" / f"{stem}.png", numbered(order))
    write(folder / "dataset.json", {"labels": {name: number for number, name in enumerate(order)}})


def class_folders(folder: Path, order: tuple[str, ...]) -> None:
    images(folder / "images")
    for stem in "ab":
        for name in order:
            write(folder / "targets" / name / f"{stem}.png", region(name).astype(np.uint8) * 255)


def planes(folder: Path, order: tuple[str, ...]) -> None:
    images(folder / "images")
    (folder / "targets").mkdir()
    for stem in "ab":
        np.save(folder / "targets" / f"{stem}.npy", np.stack([region(name) for name in order], -1).astype(np.uint8))
    write(folder / "classes.txt", "\n".join(order))


DRAWN = (coco, cvat, label_studio)
LABELS = (*DRAWN, label_files, colours, nnunet)
MASKS = (*DRAWN, class_folders, planes)
CASES = [("segmentation", source) for source in LABELS] + [("multilabel", source) for source in MASKS]
every_source = pytest.mark.parametrize(("task", "source"), CASES)


@every_source
@pytest.mark.parametrize("order", [NAMES, ("background", "car", "tree", "bus")])
def test_classes_are_matched_by_name(
    task: str, source: Callable[..., None], order: tuple[str, ...], tmp_path: Path
) -> None:
    source(tmp_path, order)
    data = FolderData(tmp_path, task, classes=REQUESTED)
    assert data.classes == REQUESTED and list(data.task.describe()["classes"]) == REQUESTED
    target = data.read_target(data.train[0])
    for number, name in enumerate(REQUESTED):
        mask = target == number if task == "segmentation" else target[number] == 1
        np.testing.assert_array_equal(mask, region(name), err_msg=name)


@every_source
@pytest.mark.parametrize(
    "requested",
    [["background", "tree", "bus"], [*REQUESTED, "van"], ["background", "tree", "bus", "lorry"], ["tree", "bus"]],
)
def test_unknown_and_missing_names_are_refused_with_both_sides(
    task: str, source: Callable[..., None], requested: list[str], tmp_path: Path
) -> None:
    source(tmp_path, NAMES)
    with pytest.raises(DataError) as refused:
        FolderData(tmp_path, task, classes=requested)
    assert all(name in str(refused.value) for name in (*requested, *NAMES))


@pytest.mark.parametrize("twice", ["car", "ca\u0301r", "Background"])
def test_a_name_of_two_classes_is_refused(twice: str, tmp_path: Path) -> None:
    images(tmp_path / "images")
    for stem in "ab":
        write(tmp_path / "targets" / f"{stem}.png", numbered(NAMES))
    names = ["background", "c\u00e1r" if twice == "ca\u0301r" else "car", "bus", twice]
    write(tmp_path / "classes.txt", "\n".join(names))
    first = 0 if twice == "Background" else 1
    with pytest.raises(DataError, match=rf"classes\.txt' names '{twice}' twice, as class {first} and as class 3"):
        FolderData(tmp_path, "segmentation")
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=rf"data\.classes' names '{twice}' twice"):
        FolderData(tmp_path, "segmentation", classes=names)


def test_masks_need_no_background(tmp_path: Path) -> None:
    coco(tmp_path, NAMES)
    data = FolderData(tmp_path, "multilabel", classes=["tree", "bus", "car"])
    for plane, name in zip(data.read_target(data.train[0]), ("tree", "bus", "car"), strict=True):
        np.testing.assert_array_equal(plane == 1, region(name))


def test_classes_are_merged_and_left_out_by_name_and_stay_so_in_another_order(tmp_path: Path) -> None:
    coco(tmp_path / "one", NAMES)
    label_files(tmp_path / "two", ("tree", "background", "car", "bus"))
    merged = {"classes": ["background", "vehicle"], "label_map": {"bus": "vehicle", "car": "vehicle", "tree": 255}}
    expected = np.select([region("tree"), region("background")], [255, 0], 1)
    data = FolderData(tmp_path / "one", "segmentation", **merged)
    np.testing.assert_array_equal(data.read_target(data.train[0]), expected)
    by_number = FolderData(tmp_path / "one", "segmentation", classes=merged["classes"], label_map={1: 1, 2: 1, 3: 255})
    np.testing.assert_array_equal(by_number.read_target(by_number.train[0]), expected)
    stored = json.loads(json.dumps(by_number.said))
    other = FolderData(tmp_path / "two", "segmentation", classes=merged["classes"], **stored)
    np.testing.assert_array_equal(other.read_target(other.train[0]), expected)
    with pytest.raises(DataError, match=r"no class is named 'lorry'.*background, bus, car, tree"):
        FolderData(tmp_path / "one", "segmentation", label_map={"lorry": 1})


def test_numbers_of_a_run_without_names_fit_any_names(tmp_path: Path) -> None:
    label_files(tmp_path, NAMES)
    data = FolderData(tmp_path, "segmentation", classes=["0", "1", "2", "3"])
    np.testing.assert_array_equal(data.read_target(data.train[0]), numbered(NAMES))


def test_the_ignored_label_of_the_data_becomes_the_requested_one(tmp_path: Path) -> None:
    nnunet(tmp_path, NAMES)
    write(tmp_path / "dataset.json", {"labels": {"background": 0, "bus": 1, "car": 2, "ignore": 3}})
    data = FolderData(tmp_path, "segmentation", classes=["background", "car", "bus"], ignore_index=255)
    expected = np.select([region("tree"), region("car"), region("bus")], [255, 1, 2], 0)
    np.testing.assert_array_equal(data.read_target(data.train[0]), expected)


class Oracle(torch.nn.Module):
    """The interface of an ensemble that evaluation needs; it predicts the regions of its classes for every image."""

    guarantee, members = None, ("oracle",)

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.task = SegmentationTask(names)
        self.combination = Combination(self.task, {"oracle": 1.0})

    def parameters(self, recurse: bool = True) -> Iterator[torch.Tensor]:  # type: ignore[override]
        yield torch.zeros(1)

    def member_maps(self, images: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        yield "oracle", torch.from_numpy(np.stack([region(name) for name in self.task.classes])[None]).float()


@pytest.mark.parametrize("source", LABELS)
def test_an_ensemble_is_scored_by_the_names_of_its_classes(source: Callable[..., None], tmp_path: Path) -> None:
    source(tmp_path, ("background", "tree", "bus", "car"))
    plain = FolderData(tmp_path, "segmentation")
    ensemble: Any = Oracle(*NAMES)
    assert evaluate(ensemble, plain, "val")["miou"] == 1.0
    assert evaluate(ensemble, FolderData(tmp_path, "segmentation", classes=REQUESTED), "val")["miou"] == 1.0
    other: Any = Oracle("background", "bus", "van", "tree")
    with pytest.raises(DataError, match=r"van.*not requested: car, not in the data: van"):
        evaluate(other, plain, "val")


@pytest.mark.parametrize("source", [class_folders, planes, coco])
def test_masks_are_numbered_as_a_task_names_them(source: Callable[..., None], tmp_path: Path) -> None:
    source(tmp_path, ("background", "car", "tree", "bus"))
    task = MultilabelTask(tuple(REQUESTED))
    for classes in (None, ["bus", "tree", "background", "car"]):
        data = FolderData(tmp_path, "multilabel", classes=classes).numbered_as(task)
        assert data.classes == REQUESTED and data.task.describe()["classes"] == REQUESTED
        for plane, name in zip(data.read_target(data.train[0]), REQUESTED, strict=True):
            np.testing.assert_array_equal(plane == 1, region(name))


def test_points_are_drawn_into_the_channel_of_their_name(tmp_path: Path) -> None:
    images(tmp_path / "images")
    for stem in "ab":
        write(tmp_path / "targets" / f"{stem}.csv", "x,y,label\n3,4,0\n12,7,1\n")
    write(tmp_path / "classes.txt", "nose\ntail")
    data = FolderData(tmp_path, "heatmap", classes=["tail", "nose"])
    tail, nose = data.read_target(data.train[0])
    assert (tail[7, 12], nose[4, 3]) == (1, 1) and tail[4, 3] < 0.1


def test_the_label_map_of_a_format_follows_the_names(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "cityscapes", {}, (), "none", ("road", "car"), 255, {7: 0, 26: 1, 3: 255})
    assert label_map_by_name(layout, layout.classes, ["car", "road"], None, 255) == {7: 1, 26: 0, 3: 255}
    assert label_map_by_name(layout, layout.classes, ["car", "road"], None, 9) == {7: 1, 26: 0, 3: 9}
    assert label_map_by_name(layout, layout.classes, None, {7: 1, 26: 0}, 255) == {7: 1, 26: 0}


def test_a_voc_folder_without_class_names_gets_the_requested_ones(tmp_path: Path) -> None:
    images(tmp_path / "JPEGImages")
    for stem in "ab":
        write(tmp_path / "SegmentationClass" / f"{stem}.png", numbered(NAMES))
    data = FolderData(tmp_path, "segmentation", classes=["sky", "cat", "dog", "cow"])
    np.testing.assert_array_equal(data.read_target(data.train[0]), numbered(NAMES))
    usual = FolderData(tmp_path, "segmentation", classes=[*reversed(VOC_CLASSES)])
    assert set(np.unique(usual.read_target(usual.train[0]))) == {20, 19, 18, 17}
