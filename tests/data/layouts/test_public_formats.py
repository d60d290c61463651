"""Pascal VOC, Cityscapes and nnU-Net."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densemble.data.layouts import find_layout
from densemble.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def voc(tmp_path: Path, image: Write, label_map: Write) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for stem in ("2007_1", "2007_2", "2007_3", "unlabelled"):
        image(root / "JPEGImages" / f"{stem}.jpg")
        if stem != "unlabelled":
            label_map(root / "SegmentationClass" / f"{stem}.png", 15)
    return root


def test_voc(voc: Path, tmp_path: Path) -> None:
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_1\n2007_3\n")
    (lists / "val.txt").write_text("2007_2\n")
    (lists / "trainval.txt").write_text("2007_1\n2007_2\n2007_3\n")
    for path in (voc, tmp_path):
        layout = find_layout(path)
        assert (layout.name, layout.split_by, layout.ignore_index, layout.unpaired) == ("voc", "files", 255, ())
        assert [sample.stem for sample in layout.splits["train"]] == ["2007_1", "2007_3"]
        assert layout.classes is not None and len(layout.classes) == 21 and layout.classes[15] == "person"
        assert layout.color_map is None


def test_cvat_masks_with_their_labelmap(voc: Path) -> None:
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "default.txt").write_text("2007_1\n2007_2\n2007_3\n")
    (voc / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nfox:250,50,83::\nignored:224,224,192::\n"
    )
    layout = find_layout(voc)
    assert layout.classes == ("background", "fox")
    assert layout.color_map == {(0, 0, 0): 0, (250, 50, 83): 1, (224, 224, 192): 255}
    assert [sample.stem for sample in layout.splits["all"]] == ["2007_1", "2007_2", "2007_3"]
    assert [file.stem for file in layout.unpaired] == ["unlabelled"]


def test_masks_without_images(voc: Path) -> None:
    (voc / "JPEGImages").rename(voc / "pictures")
    with pytest.raises(DataError, match="no JPEGImages"):
        find_layout(voc)


@pytest.mark.parametrize("train_ids", [True, False])
def test_cityscapes(train_ids: bool, tmp_path: Path, image: Write, label_map: Write) -> None:
    for split, city in (("train", "aachen"), ("train", "bonn"), ("val", "ulm")):
        start = f"{city}_000000_000019"
        image(tmp_path / "leftImg8bit" / split / city / f"{start}_leftImg8bit.png")
        label_map(tmp_path / "gtFine" / split / city / f"{start}_gtFine_labelIds.png", 7)
        if train_ids:
            label_map(tmp_path / "gtFine" / split / city / f"{start}_gtFine_labelTrainIds.png", 0)
    alone = image(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_000001_000019_leftImg8bit.png")
    layout = find_layout(tmp_path)
    assert (layout.name, layout.split_by, layout.unpaired) == ("cityscapes", "folders", (alone,))
    assert [(s.stem, s.group) for s in layout.splits["train"]] == [
        ("aachen_000000_000019", "aachen"),
        ("bonn_000000_000019", "bonn"),
    ]
    assert layout.ignore_index == 255 and layout.classes is not None and len(layout.classes) == 19
    assert layout.splits["val"][0].target.stem.endswith("labelTrainIds" if train_ids else "labelIds")
    if train_ids:
        assert layout.label_map is None
    else:
        # road 7 -> 0, sky 23 -> 10, bicycle 33 -> 18, sidewalk 8 -> 1, ego vehicle 1 and caravan 29 are void
        assert layout.label_map is not None
        assert [layout.label_map[label] for label in (7, 23, 33, 8, 1, 29, -1, 255)] == [0, 10, 18, 1, *[255] * 4]
        assert sorted(number for number in layout.label_map.values() if number != 255) == list(range(19))


@pytest.fixture
def nnunet(tmp_path: Path, image: Write, label_map: Write) -> Path:
    for case in ("c1", "c2", "c3"):
        for channel in range(2):
            image(tmp_path / "imagesTr" / f"{case}_{channel:04d}.png")
        label_map(tmp_path / "labelsTr" / f"{case}.png")
    describe(tmp_path, {"background": 0, "tumour": 2, "liver": 1, "ignore": 3})
    return tmp_path


def describe(folder: Path, labels: dict[str, Any], ending: str = ".png") -> None:
    content = {"channel_names": {"0": "a", "1": "b"}, "labels": labels, "numTraining": 3, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))


def test_nnunet(nnunet: Path, label_map: Write, image: Write) -> None:
    layout = find_layout(nnunet)
    assert (layout.name, layout.split_by, layout.ignore_index) == ("nnu-net", "none", 3)
    assert layout.classes == ("background", "liver", "tumour")
    first = layout.splits["all"][0]
    assert (first.stem, first.image.name, [band.name for band in first.bands]) == ("c1", "c1_0000.png", ["c1_0001.png"])
    (nnunet / "splits_final.json").write_text(json.dumps([{"train": ["c3", "c1"], "val": ["c2"]}, {}]))
    for channel in range(2):
        image(nnunet / "imagesTs" / f"t_{channel:04d}.png")
    assert list(find_layout(nnunet).splits) == ["train", "val"]
    label_map(nnunet / "labelsTs" / "t.png")
    layout = find_layout(nnunet)
    assert {split: [s.stem for s in samples] for split, samples in layout.splits.items()} == {
        "train": ["c1", "c3"],
        "val": ["c2"],
        "test": ["t"],
    }


def test_nnunet_case_without_a_channel_or_a_map(nnunet: Path) -> None:
    (nnunet / "imagesTr" / "c1_0001.png").unlink()
    (nnunet / "labelsTr" / "c2.png").unlink()
    layout = find_layout(nnunet)
    assert [sample.stem for sample in layout.splits["all"]] == ["c3"]
    assert {file.name for file in layout.unpaired} == {"c1_0001.png", "c2_0000.png", "c2_0001.png"}


@pytest.mark.parametrize(
    ("labels", "ending", "message"),
    [
        ({"background": 0, "whole": [1, 2]}, ".png", "regions"),
        ({"background": 0, "liver": 2}, ".png", "0, 1, 2"),
        ({"background": 0, "liver": 1}, ".nii.gz", "2-D images"),
        ({"background": None}, ".png", r"dataset\.json"),
    ],
)
def test_nnunet_that_cannot_be_used(labels: dict[str, Any], ending: str, message: str, nnunet: Path) -> None:
    describe(nnunet, labels, ending)
    with pytest.raises(DataError, match=message):
        find_layout(nnunet)


def test_nnunet_fold_that_names_an_unknown_case(nnunet: Path) -> None:
    (nnunet / "splits_final.json").write_text(json.dumps([{"train": ["c1"], "val": ["c9"]}]))
    with pytest.raises(DataError, match="c9"):
        find_layout(nnunet)
