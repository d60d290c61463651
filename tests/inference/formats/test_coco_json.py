"""COCO files: pycocotools reads the masks back, exactly, from runs and from polygons."""

import json
from pathlib import Path

import numpy as np
import pytest
from known_predictions import CLASSES, blobs, make, of_maps, overlapping
from scipy import ndimage

from densemble.errors import UsageError
from densemble.inference.formats import FormatOptions
from densemble.inference.formats.outlines import outlines
from densemble.tasks import DepthTask, SegmentationTask

pytest.importorskip("pycocotools")
from pycocotools import mask as codec
from pycocotools.coco import COCO

KINDS = ("coco", "coco-polygons")
RING = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_gives_the_label_map_back(kind: str, seed: int, photo: Path, tmp_path: Path) -> None:
    label = blobs(seed)
    prediction = make(label, photo)
    (path,) = prediction.save(tmp_path, (kind,))
    assert path.name == f"a.{kind}.json"
    coco = COCO(path)
    assert [(c["id"], c["name"]) for c in coco.cats.values()] == [(2, "road"), (3, "car"), (4, "sky")]
    (image,) = coco.imgs.values()
    assert (image["file_name"], image["height"], image["width"]) == ("a.png", 24, 31)
    read = np.zeros(label.shape, int)
    for annotation in coco.anns.values():
        region, number = coco.annToMask(annotation).astype(bool), annotation["category_id"] - 1
        assert (region == (label == number)).all()
        read[region] = number
        rows, columns = np.nonzero(region)
        assert annotation["area"] == region.sum()
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation["bbox"] == box
        mean = np.where(rows < 12, 0.6, 0.8).mean()
        assert annotation["score"] == pytest.approx(mean, abs=6e-5)
    np.testing.assert_array_equal(read, label)


@pytest.mark.parametrize("kind", KINDS)
def test_one_annotation_per_component(kind: str, photo: Path, tmp_path: Path) -> None:
    label = blobs(5)
    (path,) = make(label, photo).save(tmp_path, (kind,), None, FormatOptions(components=True))
    coco = COCO(path)
    for number in (1, 2, 3):
        ids, count = ndimage.label(label == number)
        regions = [coco.annToMask(a).astype(bool) for a in coco.anns.values() if a["category_id"] == number + 1]
        assert len(regions) == count
        assert sorted(r.tobytes() for r in regions) == sorted((ids == i).tobytes() for i in range(1, count + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_may_overlap(kind: str, photo: Path, tmp_path: Path) -> None:
    mean, task = overlapping(0)
    (path,) = of_maps(mean, task, photo).save(tmp_path, (kind,))
    coco = COCO(path)
    masks = {a["category_id"] - 1: coco.annToMask(a).astype(bool) for a in coco.anns.values()}
    assert (sum(mask.astype(int) for mask in masks.values()) > 1).any()
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask, mean[number].astype(np.float32) >= 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_data_and_absent_classes_have_no_annotation(kind: str, photo: Path, tmp_path: Path) -> None:
    label, valid = np.where(blobs(1) == 2, 1, blobs(1)), np.ones((24, 31), bool)
    valid[:9] = False
    (path,) = make(label, photo, valid=valid).save(tmp_path, (kind,))
    coco = COCO(path)
    assert sorted(a["category_id"] for a in coco.anns.values()) == [2, 4]
    for annotation in coco.anns.values():
        expected = (label == annotation["category_id"] - 1) & valid
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), expected)
    (empty,) = make(label, photo, valid=np.zeros((24, 31), bool)).save(tmp_path, (kind,))
    assert json.loads(empty.read_text())["annotations"] == []


def test_first_class_without_background(photo: Path, tmp_path: Path) -> None:
    task = SegmentationTask(("sky", "road"))
    (path,) = make(blobs(0, 2), photo, task).save(tmp_path, ("coco",))
    assert [(c["id"], c["name"]) for c in COCO(path).cats.values()] == [(1, "sky"), (2, "road")]


def rasterized(polygons: list[list[tuple[int, int]]], size: tuple[int, int]) -> np.ndarray:
    runs = codec.frPyObjects([[float(n) for point in polygon for n in point] for polygon in polygons], *size)
    return np.asarray(codec.decode(runs)).sum(2)


@pytest.mark.parametrize("density", [0.3, 0.5, 0.7, 0.95])
def test_outlines_cover_each_pixel_once(density: float) -> None:
    for seed in range(5):
        mask = np.random.default_rng(seed).random((20, 27)) < density
        np.testing.assert_array_equal(rasterized(outlines(mask), (20, 27)), mask)


def test_a_ring_is_cut_through_its_hole() -> None:
    # Column 2 divides the ring; the left part is one column, the right part a C with a foot.
    assert sorted(outlines(RING)) == [
        [(1, 1), (2, 1), (2, 4), (1, 4)],
        [(2, 1), (4, 1), (4, 3), (5, 3), (5, 4), (2, 4), (2, 3), (3, 3), (3, 2), (2, 2)],
    ]


def test_pixels_that_touch_at_a_corner_are_two_polygons() -> None:
    assert outlines(np.eye(2, dtype=bool)) == [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]
    assert outlines(np.zeros((2, 2), bool)) == []


def test_values_cannot_be_regions(photo: Path, tmp_path: Path) -> None:
    prediction = of_maps(np.ones((1, 24, 31)), DepthTask(), photo)
    message = "'depth' cannot be saved as 'coco'; available: map, overlay, uncertainty, npy, guarantee, csv"
    with pytest.raises(UsageError, match=message):
        prediction.save(tmp_path / "out", ("map", "coco"))
    assert not (tmp_path / "out").exists()


def test_without_pycocotools(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"pip install 'densemble\[coco\]'"):
        make(blobs(0), photo).save(tmp_path, ("coco",))
    assert make(blobs(0), photo).save(tmp_path, ("coco-polygons",))  # needs no library


def test_an_image_without_a_file_is_named_after_its_number(tmp_path: Path) -> None:
    (path,) = make(blobs(0), name="7").save(tmp_path, ("coco",))
    assert path.name == "7.coco.json" and json.loads(path.read_text())["images"][0]["file_name"] == "7"
    assert CLASSES[0] == "background"
