"""COCO, CVAT and Label Studio: image paths, class numbers, drawn label maps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densemble.data.folder import FolderData
from densemble.data.layouts import Layout, Sample, find_layout
from densemble.errors import DataError

coco_masks = pytest.importorskip("pycocotools.mask")

Write = Callable[..., Path]
SIZE = (12, 16)
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def square(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def labels(sample: Sample) -> np.ndarray:
    assert sample.drawing is not None
    return sample.drawing.labels(SIZE)


def named(layout: Layout) -> dict[str, list[str]]:
    return {split: [sample.stem for sample in samples] for split, samples in layout.splits.items()}


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- COCO -----------------------------------------------------------------------------------------------------------


def coco(annotations: list[dict[str, Any]], names: tuple[str, ...] = ("a.jpg",)) -> dict[str, Any]:
    images = [{"id": number, "file_name": name, "height": 12, "width": 16} for number, name in enumerate(names)]
    full = [{"image_id": 0, "iscrowd": 0, "bbox": [0, 0, 1, 1], **annotation} for annotation in annotations]
    return {"images": images, "annotations": full, "categories": CATEGORIES}


def test_coco_instances(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "images" / "train2017" / "a.jpg")
    image(tmp_path / "images" / "val2017" / "a.jpg")
    small = {"category_id": 7, "segmentation": [square(4, 3, 8, 6)], "area": 12}
    large = {"category_id": 3, "segmentation": [square(2, 2, 12, 9)], "area": 70}
    crowd = {
        "category_id": 7,
        "iscrowd": 1,
        "segmentation": {"size": [12, 16], "counts": [0, 12, 180]},
        "area": 1000,
    }
    source = save(tmp_path / "annotations" / "instances_train2017.json", coco([small, large, crowd]))
    save(tmp_path / "annotations" / "instances_val2017.json", coco([]))
    save(tmp_path / "annotations" / "captions_train2017.json", {"images": [], "annotations": []})
    layout = find_layout(tmp_path)
    assert (layout.name, layout.split_by, layout.unpaired, layout.ignore_index) == ("coco", "files", (), None)
    assert layout.classes == ("background", "cat", "dog")  # in the order of their ids
    (train,), (val,) = layout.splits["train"], layout.splits["val"]
    assert (train.image.parent.name, val.image.parent.name, train.target) == ("train2017", "val2017", source)
    expected = np.zeros(SIZE, np.int64)
    expected[:, 0] = 2
    expected[2:9, 2:12] = 1
    expected[3:6, 4:8] = 2  # the smaller lies above the larger, whatever their order in the file
    np.testing.assert_array_equal(labels(train), expected)
    assert not labels(val).any()


def test_coco_files_that_number_their_categories_differently(tmp_path: Path, image: Write) -> None:
    for split, ids in (("train", {"cat": 3, "dog": 7}), ("val", {"dog": 3, "cow": 4, "cat": 9})):
        image(tmp_path / split / "a.jpg")
        one = {"category_id": ids["cat"], "segmentation": [square(2, 2, 12, 9)], "area": 70}
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        save(tmp_path / split / "all.json", coco([one]) | {"categories": categories})
    layout = find_layout(tmp_path)
    assert layout.classes == ("background", "cat", "dog", "cow")  # by the lowest id of each
    for split in ("train", "val"):
        assert set(np.unique(labels(layout.splits[split][0]))) == {0, 1}


@pytest.mark.parametrize("place", ["train/_annotations.coco.json", "annotations/instances_default.json", "all.json"])
def test_coco_as_other_tools_export_it(place: str, tmp_path: Path, image: Write) -> None:
    folder = tmp_path / ("images" if "default" in place else "train" if "train" in place else "")
    image(folder / "a.jpg")
    forgotten = image(folder / "b.jpg")
    save(tmp_path / place, coco([{"category_id": 3, "segmentation": [square(0, 0, 16, 12)]}], ("a.jpg", "lost.jpg")))
    layout = find_layout(tmp_path)
    assert named(layout) == {"train" if "train" in place else "all": ["a"]}
    assert layout.unpaired == (tmp_path / "lost.jpg", forgotten)
    assert (labels(layout.splits["train" if "train" in place else "all"][0]) == 1).all()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("size", [[16, 12], [24, 8], [6, 32]])
def test_coco_runs_of_another_size_are_refused(size: list[int], compressed: bool, tmp_path: Path, image: Write) -> None:
    """They hold as many pixels as the image and would be drawn scrambled."""
    mask = np.zeros(size, np.uint8, order="F")
    mask[1:3, 2:5] = 1
    counts: Any = [2 * size[0] + 1, 2, size[0] - 2, 2, size[0] - 2, 2]
    counts = [*counts, mask.size - sum(counts)]
    if compressed:
        counts = coco_masks.encode(mask)["counts"].decode()
    image(tmp_path / "a.jpg")
    runs = {"id": 31, "category_id": 3, "area": 6, "segmentation": {"size": size, "counts": counts}}
    save(tmp_path / "all.json", coco([runs]))
    with pytest.raises(DataError, match=rf"all\.json.*a\.jpg.*annotation 31 has runs for {size[0]}x{size[1]}.*12x16"):
        labels(find_layout(tmp_path).splits["all"][0])


def test_coco_regions_that_overlap_are_whole_in_multilabel(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    dog = {"category_id": 7, "segmentation": [square(4, 3, 8, 6)], "area": 12}
    cat = {"category_id": 3, "segmentation": [square(2, 2, 12, 9)], "area": 70}
    save(tmp_path / "all.json", coco([dog, cat], ("a.jpg",)))
    image(tmp_path / "b.jpg")
    rows, columns = np.mgrid[:12, :16]
    both = [
        (rows >= 2) & (rows < 9) & (columns >= 2) & (columns < 12),
        (rows >= 3) & (rows < 6) & (columns >= 4) & (columns < 8),
    ]
    (sample,) = find_layout(tmp_path).splits["all"]
    data = FolderData(tmp_path, "multilabel", skip_unpaired=True, label_map={"dog": 255})
    whole = FolderData(tmp_path, "multilabel", skip_unpaired=True).read_target(sample)
    np.testing.assert_array_equal(whole, [~(both[0] | both[1]), *both])
    unknown = data.read_target(sample)
    np.testing.assert_array_equal(unknown[1], both[0])  # known where it is drawn, though a dog hides it
    np.testing.assert_array_equal(unknown[2], np.where(both[1], 255, 0))


def test_coco_names_never_leave_the_folder(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "secret.jpg")
    image(tmp_path / "data" / "a.jpg")
    name = "../secret.jpg"
    save(tmp_path / "data" / "all.json", coco([{"category_id": 3, "segmentation": [square(0, 0, 4, 4)]}], (name,)))
    layout = find_layout(tmp_path / "data")
    assert layout.splits["all"] == () and layout.unpaired == (tmp_path / "data" / "secret.jpg",)


def test_coco_box_without_outline_is_named_when_drawn(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    outlined, box = {"category_id": 3, "segmentation": [square(0, 0, 4, 4)]}, {"category_id": 7, "segmentation": []}
    save(tmp_path / "all.json", coco([outlined, box]))
    (sample,) = find_layout(tmp_path).splits["all"]
    with pytest.raises(DataError, match=r"all\.json.*a\.jpg.*no outline"):
        labels(sample)
    save(tmp_path / "all.json", coco([box]))
    with pytest.raises(DataError, match="boxes but no outlines"):
        find_layout(tmp_path)


def panoptic(tmp_path: Path, image: Write, png: str) -> Path:
    image(tmp_path / "val2017" / "a.jpg")
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[:6, :8] = (10, 0, 0)
    colors[6:, :8] = (44, 1, 0)  # 300
    colors[:, 8:12] = (1, 2, 3)  # 197121
    path = tmp_path / png
    path.parent.mkdir(parents=True)
    Image.fromarray(colors).save(path)
    segments = [{"id": 10, "category_id": 7}, {"id": 300, "category_id": 3}, {"id": 197121, "category_id": 7}]
    content = coco([{"file_name": "a.png", "segments_info": segments}])
    save(tmp_path / "annotations" / "instances_val2017.json", coco([]))
    return save(tmp_path / "annotations" / "panoptic_val2017.json", content)


@pytest.mark.parametrize("png", ["annotations/panoptic_val2017/a.png", "panoptic_val2017/a.png"])
def test_coco_panoptic(png: str, tmp_path: Path, image: Write) -> None:
    panoptic(tmp_path, image, png)
    layout = find_layout(tmp_path)
    assert (layout.classes, layout.ignore_index, layout.unpaired) == (("cat", "dog"), 255, ())
    expected = np.full(SIZE, 255)
    expected[:6, :8] = expected[:, 8:12] = 1
    expected[6:, :8] = 0
    np.testing.assert_array_equal(labels(layout.splits["val"][0]), expected)
    masks = FolderData(tmp_path, "multilabel").read_target(layout.splits["val"][0])
    np.testing.assert_array_equal(masks, [np.where(expected == 255, 255, expected == number) for number in (0, 1)])


def test_coco_panoptic_segment_that_is_not_listed(tmp_path: Path, image: Write) -> None:
    source = panoptic(tmp_path, image, "panoptic_val2017/a.png")
    source.write_text(source.read_text().replace("197121", "5"))
    with pytest.raises(DataError, match=r"segment 197121.*panoptic_val2017\.json"):
        labels(find_layout(tmp_path).splits["val"][0])


@pytest.mark.parametrize(
    "change",
    [
        {"annotations": [{"image_id": 99, "category_id": 3, "segmentation": [[1, 1, 2, 2, 3, 1]], "area": 1}]},
        {"annotations": [{"image_id": 0, "category_id": 99, "segmentation": [[1, 1, 2, 2, 3, 1]], "area": 1}]},
        {"annotations": [{"image_id": 0, "category_id": 3, "segmentation": [["x"]], "area": 1}]},
        {"annotations": [{"image_id": 0, "category_id": 3, "segmentation": {"counts": None}, "area": 1}]},
        {"annotations": [{"image_id": 0, "category_id": 3, "segmentation": [[1, 1, 2, 2, 3, 1]]}]},
        {"annotations": [5]},
        {"images": [{"id": 0}]},
        {"categories": [{"id": 3}]},
        {"categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "cat"}]},
    ],
)
def test_coco_that_cannot_be_used(change: dict[str, Any], tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    save(tmp_path / "all.json", coco([{"category_id": 3, "segmentation": [square(0, 0, 4, 4)]}]) | change)
    with pytest.raises(DataError, match=r"all\.json"):
        find_layout(tmp_path)


def test_json_that_is_none(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    save(tmp_path / "annotations" / "train.json", '{"images": [')
    with pytest.raises(DataError, match=r"train\.json' is not valid JSON"):
        find_layout(tmp_path)


# --- CVAT -----------------------------------------------------------------------------------------------------------

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>
<image id="0" name="day/a.jpg" width="16" height="12">
 <polygon label="cat" z_order="2" points="4.0,3.0;8.0,3.0;8.0,6.0;4.0,6.0"/>
 <polygon label="dog" z_order="1" points="2,2;12,2;12,9;2,9"/>
 <box label="dog" xtl="0" ytl="0" xbr="16" ybr="12" z_order="3"/>
 <mask label="cat" z_order="0" rle="1, 3, 2" left="13" top="10" width="3" height="2"/>
</image>
<image id="1" name="b.jpg" width="16" height="12"/>
</annotations>"""


def test_cvat(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "images" / "day" / "a.jpg")
    image(tmp_path / "images" / "b.jpg")
    save(tmp_path / "annotations.xml", CVAT)
    layout = find_layout(tmp_path)
    assert (layout.name, layout.split_by, layout.classes) == ("cvat", "none", ("background", "dog", "cat"))
    assert named(layout) == {"all": ["a", "b"]} and layout.unpaired == ()
    expected = np.zeros(SIZE, np.int64)
    expected[10, 14:16] = expected[11, 13] = 2  # rows of a box of 3x2: off 1, on 3, off 2
    expected[2:9, 2:12] = 1
    expected[3:6, 4:8] = 2
    np.testing.assert_array_equal(labels(layout.splits["all"][0]), expected)
    assert not labels(layout.splits["all"][1]).any()


def test_cvat_draws_ellipses_and_counts_what_it_does_not_draw(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    shapes = (
        '<ellipse label="cat" cx="7" cy="5" rx="4" ry="2" rotation="60"/>'
        '<box label="dog" xtl="0" ytl="0" xbr="4" ybr="4" rotation="45"/>'
        '<polyline label="dog" points="1,1;2,2"/><points label="dog" points="1,1"/>'
    )
    meta = CVAT[CVAT.index("<meta>") : CVAT.index("<image")]
    element = f'<image name="a.jpg" width="16" height="12">{shapes}</image>'
    save(tmp_path / "annotations.xml", f"<annotations>{meta}{element}</annotations>")
    layout = find_layout(tmp_path)
    np.testing.assert_array_equal(labels(layout.splits["all"][0]) == 2, ellipse_by_hand(7, 5, 4, 2, 60))
    assert layout.undrawn == {"box": 1, "polyline": 1, "points": 1}


def test_cvat_subsets_are_splits(tmp_path: Path, image: Write) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"{name}.jpg")
    text = CVAT.replace('id="0" name', 'id="0" subset="Train" name').replace('id="1" name', 'id="1" subset="Test" name')
    save(tmp_path / "annotations.xml", text)
    assert named(find_layout(tmp_path)) == {"train": ["a"], "test": ["b"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations>", "not valid XML"),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotations>&e;</annotations>', "DOCTYPE"),
        (CVAT.replace('width="16"', 'width="wide"'), "wide"),
        (CVAT.replace('label="cat" z', 'label="cow" z'), "cow"),
        (CVAT.replace("4.0,3.0;", "4.0,x;"), "annotations.xml"),
        (CVAT.replace('rle="1, 3, 2"', ""), "rle"),
        ("<annotations><track id='0'/></annotations>", "CVAT for images"),
        ("<annotations><image name='a.jpg' width='1' height='1'/></annotations>", "no polygons"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_cvat_that_cannot_be_used(text: str, message: str, encoding: str, tmp_path: Path, image: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "annotations.xml").write_bytes(text.replace('"utf-8"', f'"{encoding}"').encode(encoding))
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path)


# --- Label Studio ---------------------------------------------------------------------------------------------------


def brush(mask: np.ndarray) -> list[int]:
    """The simplest stream of the format: every value of the RGBA image is a list of one."""
    values = np.repeat(mask.ravel().astype(int) * 255, 4)
    text = f"{values.size:032b}00111" + "0000" * 4 + "".join(f"0000{value:08b}" for value in values)
    text += "0" * (-len(text) % 8)
    return [int(text[start : start + 8], 2) for start in range(0, len(text), 8)]


def result(kind: str, label: str, **value: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "from_name": "tag",
        "original_width": 16,
        "original_height": 12,
        "value": {kind: [label], **value},
    }


def task(number: int, image: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "data": {"image": image}, "annotations": list(annotations)}


def test_label_studio(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    image(tmp_path / "images" / "0a1b2c3d-b.jpg")
    stroke = np.zeros(SIZE, bool)
    stroke[5:9, 2:13] = True
    polygon = result("polygonlabels", "dog", points=[[25, 25], [50, 25], [50, 50], [25, 50]])
    painted = result("brushlabels", "cat", format="rle", rle=brush(stroke))
    old = {"id": 1, "updated_at": "2024-01-01", "result": [result("brushlabels", "cow", format="rle", rle=[0])]}
    new = {"id": 2, "updated_at": "2025-01-01", "result": [polygon, painted, result("rectanglelabels", "box", x=1)]}
    cancelled = {"id": 3, "updated_at": "2026-01-01", "was_cancelled": True, "result": []}
    tasks = [
        task(1, "/data/upload/1/0a1b2c3d-a.jpg", new, old, cancelled),
        task(2, "/data/local-files/?d=images/0a1b2c3d-b.jpg", {"id": 4, "result": []}),
        task(3, "s3://bucket/unlabelled.jpg"),
    ]
    save(tmp_path / "project-1.json", tasks)
    layout = find_layout(tmp_path)
    assert (layout.name, layout.classes) == ("label studio", ("background", "cat", "dog"))
    by_name = {sample.image.name: sample for sample in layout.splits["all"]}
    assert set(by_name) == {"a.jpg", "0a1b2c3d-b.jpg"}
    expected = np.zeros(SIZE, np.int64)
    expected[3:6, 4:8] = 2  # 25 % of 12 and 16 to 50 %
    expected[stroke] = 1
    np.testing.assert_array_equal(labels(by_name["a.jpg"]), expected)
    assert not labels(by_name["0a1b2c3d-b.jpg"]).any()


def ellipse_by_hand(x: float, y: float, along: float, across: float, degrees: float) -> np.ndarray:
    """Pixels whose centre lies inside, each turned back onto the axes by a complex number."""
    rows, columns = np.mgrid[:12, :16] + 0.5
    turned = ((columns - x) + 1j * (rows - y)) * np.exp(-1j * np.deg2rad(degrees))
    return (turned.real / along) ** 2 + (turned.imag / across) ** 2 <= 1


def test_label_studio_draws_ellipses_and_counts_what_it_does_not_draw(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    round_one = result("ellipselabels", "dog", x=50, y=50, radiusX=25, radiusY=20, rotation=30)
    box = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 45}
    unlabelled = result("polygonlabels", "") | {"value": {"points": [[0, 0]], "polygonlabels": []}}
    results = [
        round_one,
        result("rectanglelabels", "cat", **box),
        result("rectanglelabels", "cat", **box),
        result("keypointlabels", "cat", x=1, y=1),
        unlabelled,
        {"type": "choices", "from_name": "c", "value": {"choices": ["night"]}},
    ]
    save(tmp_path / "p.json", [task(1, "a.jpg", {"id": 1, "result": results})])
    layout = find_layout(tmp_path)
    assert layout.undrawn == {"rectanglelabels": 2, "keypointlabels": 1, "polygonlabels without a label": 1}
    np.testing.assert_array_equal(labels(layout.splits["all"][0]) == 1, ellipse_by_hand(8, 6, 4, 2.4, 30))
    problems = FolderData(tmp_path, "segmentation", classes=["background", "dog"]).check()["problems"]
    told = [problem["message"] for problem in problems if problem["kind"] == "regions not drawn"]
    assert any("2 regions of type 'rectanglelabels'" in message for message in told) and len(told) == 3


@pytest.mark.parametrize(("tags", "fields"), [(("x", "y"), ("x", "y")), (("img-1", "img-2"), ("img1", "img2"))])
def test_label_studio_regions_lie_on_their_own_image(
    tags: tuple[str, str], fields: tuple[str, str], tmp_path: Path, image: Write
) -> None:
    for name in ("a", "b", "c", "d"):
        image(tmp_path / f"{name}.jpg")
    quarter = [[25, 25], [50, 25], [50, 50], [25, 50]]
    first = result("polygonlabels", "cat", points=quarter) | {"to_name": tags[0]}
    second = result("polygonlabels", "dog", points=quarter) | {"to_name": tags[1]}
    pairs = [dict(zip(fields, names, strict=True)) for names in (("a.jpg", "b.jpg"), ("c.jpg", "d.jpg"))]
    tasks = [
        {"id": 1, "data": pairs[0], "annotations": [{"id": 1, "result": [first, second]}]},
        {"id": 2, "data": pairs[1], "annotations": [{"id": 2, "result": [second]}]},
    ]
    save(tmp_path / "p.json", tasks)
    drawn = {sample.stem: labels(sample) for sample in find_layout(tmp_path).splits["all"]}
    assert {name: set(np.unique(found)) for name, found in drawn.items()} == {
        "a": {0, 1}, "b": {0, 2}, "c": {0}, "d": {0, 2}
    }  # fmt: skip
    tasks[0]["annotations"][0]["result"] = [first, second | {"to_name": "elsewhere"}]
    save(tmp_path / "p.json", tasks)
    with pytest.raises(DataError, match=rf"task 1 has the images {', '.join(fields)}.*'elsewhere'"):
        find_layout(tmp_path)


def test_label_studio_region_of_two_labels(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    both = result("polygonlabels", "dog", points=[[25, 25], [50, 25], [50, 50], [25, 50]])
    both["value"]["polygonlabels"] = ["dog", "cat"]
    save(tmp_path / "p.json", [task(1, "a.jpg", {"id": 1, "result": [both]})])
    (sample,) = find_layout(tmp_path).splits["all"]
    assert set(np.unique(labels(sample))) == {0, 2}
    assert sample.drawing is not None
    assert [(number, int(region.sum())) for number, region in sample.drawing.regions(SIZE)] == [
        (1, 12),
        (2, 12),
        (0, 180),
    ]


def test_label_studio_takes_all_classes_from_classes_txt(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    polygon = result("polygonlabels", "dog", points=[[25, 25], [50, 25], [50, 50], [25, 50]])
    save(tmp_path / "p.json", [task(1, "a.jpg", {"id": 1, "result": [polygon]})])
    (tmp_path / "classes.txt").write_text("cat\ndog\ncow\n")
    layout = find_layout(tmp_path)
    assert layout.classes == ("background", "cat", "dog", "cow")
    assert set(np.unique(labels(layout.splits["all"][0]))) == {0, 2}
    (tmp_path / "classes.txt").write_text("cat\ncow\n")
    with pytest.raises(DataError, match=r"p\.json.*'dog' is not one of the classes background, cat, cow"):
        find_layout(tmp_path)


def test_label_studio_masks_beside_the_json(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    for count, rows in enumerate((slice(0, 3), slice(8, 12))):
        pixels = np.zeros(SIZE)
        pixels[rows] = 255
        image(tmp_path / "masks" / f"task-5-annotation-9-by-me@x.org-tag-red fox-{count}.png", pixels)
    with pytest.raises(DataError, match="not the JSON"):
        find_layout(tmp_path)
    strokes = [result("brushlabels", "red fox"), result("brushlabels", "red fox")]
    save(tmp_path / "project.json", [task(5, "https://x.org/a.jpg", {"id": 9, "result": strokes})])
    layout = find_layout(tmp_path)
    expected = np.zeros(SIZE, np.int64)
    expected[:3] = expected[8:] = 1
    np.testing.assert_array_equal(labels(layout.splits["all"][0]), expected)
    assert layout.classes == ("background", "red fox") and layout.unpaired == ()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"id": 1, "image": "a.jpg", "annotation_id": 1}], "JSON-MIN"),
        ([task(1, "a.jpg", {"id": 1, "result": [result("rectanglelabels", "x", x=1)]})], "no brush strokes"),
        ([task(1, "a.jpg", {"id": 1, "result": [{"value": {"brushlabels": ["x"], "rle": 10**12}}]})], "no 'type'"),
        ([task(1, "a.jpg", {"id": 1, "result": [result("brushlabels", "x", format="rle", rle=10**12)]})], "p.json"),
        ([task(1, "a.jpg", {"id": 1, "result": [result("brushlabels", "x", format="rle", rle=[300])]})], "p.json"),
        ([task(1, "a.jpg", {"id": 1, "result": [result("polygonlabels", "x", points=[[1]])]})], "p.json"),
        ([task(1, "a.jpg", {"id": 1, "result": [result("brushlabels", "x")]})], "no pixels"),
        ([task(1, "nothing", {"id": 1, "result": [result("brushlabels", "x", format="rle", rle=[1])]})], "no image"),
    ],
)
def test_label_studio_that_cannot_be_used(tasks: Any, message: str, tmp_path: Path, image: Write) -> None:
    image(tmp_path / "a.jpg")
    save(tmp_path / "p.json", tasks)
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path)
