"""Label Studio and CVAT files: the data layouts read the label map back."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from known_predictions import CLASSES, blobs, make, of_maps, overlapping

from densemble.data.layouts import find_layout
from densemble.data.layouts.brush import decode_brush, encode_brush
from densemble.inference.formats import FormatOptions
from densemble.tasks import HeatmapTask

BOTH = pytest.mark.parametrize("components", [False, True])


def read_labels(folder: Path, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    layout = find_layout(folder)
    assert layout.name == name
    (sample,) = layout.splits["all"]
    assert sample.drawing is not None and sample.image.name == "a.png"
    return sample.drawing.labels((24, 31)), layout.classes


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_cvat_gives_the_label_map_back(seed: int, components: bool, photo: Path) -> None:
    label = blobs(seed)
    (path,) = make(label, photo).save(photo.parent, ("cvat",), None, FormatOptions(components=components))
    path.rename(photo.parent / "annotations.xml")
    labels, classes = read_labels(photo.parent, "cvat")
    assert classes == CLASSES
    np.testing.assert_array_equal(labels, label)


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_label_studio_gives_the_label_map_back(seed: int, components: bool, photo: Path) -> None:
    label = blobs(seed)
    options = FormatOptions(components=components, model_version="v1", from_name="mask", to_name="photo")
    (path,) = make(label, photo).save(photo.parent, ("labelstudio",), None, options)
    (task,) = json.loads(path.read_text())
    (prediction,) = task.pop("predictions")
    assert task == {"data": {"image": "/data/local-files/?d=a.png"}} and prediction["model_version"] == "v1"
    shown = np.where(np.arange(24)[:, None] < 12, 0.6, 0.8)[np.nonzero(label)[0], 0]
    assert prediction["score"] == pytest.approx(shown.mean(), abs=1e-4)
    for result in prediction["result"]:
        assert (result["from_name"], result["to_name"], result["type"]) == ("mask", "photo", "brushlabels")
    # A user who accepts the prediction makes an annotation of it.
    (photo.parent / "a.labelstudio.json").unlink()
    exported = [{"id": 1, "annotations": [{"id": 2, "result": prediction["result"]}], **task}]
    (photo.parent / "exporters.json").write_text(json.dumps(exported))
    labels, classes = read_labels(photo.parent, "label studio")
    assert set(classes) == set(CLASSES)
    np.testing.assert_array_equal(np.array([CLASSES.index(name) for name in classes])[labels], label)


def test_overlapping_masks(photo: Path) -> None:
    mean, task = overlapping(1)
    prediction = of_maps(mean, task, photo)
    masks = prediction.mean.numpy() >= 0.5
    cvat, studio = prediction.save(photo.parent / "out", ("cvat", "labelstudio"))
    for element in ElementTree.parse(cvat).iterfind("image/mask"):
        left, top, width, height = (int(element.attrib[name]) for name in ("left", "top", "width", "height"))
        runs = [int(run) for run in element.attrib["rle"].split(",")]
        crop = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
        expected = masks[task.classes.index(element.attrib["label"])]
        np.testing.assert_array_equal(np.pad(crop, ((top, 24 - top - height), (left, 31 - left - width))), expected)
    (read,) = json.loads(studio.read_text())
    for result in read["predictions"][0]["result"]:
        alpha = decode_brush(bytes(result["value"]["rle"]), 24 * 31 * 4)[3::4]
        expected = masks[task.classes.index(result["value"]["brushlabels"][0])]
        np.testing.assert_array_equal(alpha.reshape(24, 31) == 255, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 300), (5, 7)])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_decoding_a_stroke_inverts_encoding(size: tuple[int, int], density: float) -> None:
    region = np.random.default_rng(0).random(size) < density
    values = decode_brush(encode_brush(region), region.size * 4)
    np.testing.assert_array_equal(values.reshape(*size, 4), np.where(region, 255, 0)[..., None].repeat(4, 2))


def test_a_stroke_as_label_studio_encodes_it() -> None:
    # label_studio_converter.brush.mask2rle of [[0, 255, 255], [255, 0, 0]]; its last byte is padding.
    reference = [0, 0, 0, 24, 57, 27, 252, 96, 22, 255, 231, 0, 0]
    assert encode_brush(np.array([[0, 1, 1], [1, 0, 0]], bool)) == bytes(reference[:-1])


def test_keypoints_are_points_of_cvat(photo: Path, tmp_path: Path) -> None:
    mean = np.zeros((2, 24, 31))
    mean[0, 5, 7], mean[1, 20, 3] = 0.9, 0.4
    prediction = of_maps(mean, HeatmapTask(("nose", "tail")), photo)
    cvat, table = prediction.save(tmp_path, ("cvat", "csv"))
    points = [element.attrib for element in ElementTree.parse(cvat).iterfind("image/points")]
    assert [(p["label"], p["points"]) for p in points] == [("nose", "7.50,5.50"), ("tail", "3.50,20.50")]
    assert table.read_text() == (
        "image,height,width,nose_x,nose_y,nose_confidence,tail_x,tail_y,tail_confidence\na.png,24,31,7,5,0.9,3,20,0.4\n"
    )
