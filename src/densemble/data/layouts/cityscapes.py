"""Cityscapes: ``leftImg8bit/SPLIT/CITY`` beside ``gtFine/SPLIT/CITY``."""

from collections.abc import Sequence
from pathlib import Path

from densemble.data.layouts.class_names import VOID
from densemble.data.layouts.folders import split_folders, walk
from densemble.data.layouts.layout import Layout, Sample

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
# Ids by train id: https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/helpers/labels.py
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_LAST_ID = 33
_IMAGE_ENDING = "_leftImg8bit"


def find(path: Path) -> Layout | None:
    """Find ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` with ``*_labelIds.png`` in ``gtFine``, else ``gtCoarse``.

    ``*_labelTrainIds.png`` are used if every image with a target has one. Otherwise the label map converts ids to the
    19 train ids and all other ids to 255. The city is the group. With coarse targets, ``train_extra`` is part of the
    train split.
    """
    annotation = next((name for name in ("gtFine", "gtCoarse") if (path / name).is_dir()), None)
    if annotation is None or not (path / "leftImg8bit").is_dir():
        return None
    folders = {split: [folder.name] for split, folder in split_folders(path / "leftImg8bit").items()}
    if annotation == "gtCoarse" and (path / "leftImg8bit" / "train_extra").is_dir():
        folders.setdefault("train", []).append("train_extra")
    images = {
        split: [image for name in names for image in walk(path / "leftImg8bit" / name, (f"{_IMAGE_ENDING}.png",))]
        for split, names in folders.items()
    }
    ending = _target_ending(path, annotation, [image for split in images.values() for image in split])
    splits: dict[str, tuple[Sample, ...]] = {}
    unpaired: list[Path] = []
    for split, files in images.items():
        targets = {image: _target_of(image, path, annotation, ending) for image in files}
        unpaired += [image for image, target in targets.items() if not target.is_file()]
        for name in folders[split]:
            unpaired += set(walk(path / annotation / name, (f"{ending}.png",))) - set(targets.values())
        splits[split] = tuple(
            Sample(image, target, group=image.parent.name, name=image.stem.removesuffix(_IMAGE_ENDING))
            for image, target in targets.items()
            if target.is_file()
        )
    label_map = None if ending.endswith("labelTrainIds") else _train_ids()
    return Layout(path, "cityscapes", splits, tuple(sorted(unpaired)), "folders", CITYSCAPES_CLASSES, VOID, label_map)


def _target_ending(path: Path, annotation: str, images: Sequence[Path]) -> str:
    ids, train_ids = f"_{annotation}_labelIds", f"_{annotation}_labelTrainIds"
    has_ids, has_train_ids = (
        {image for image in images if _target_of(image, path, annotation, ending).is_file()}
        for ending in (ids, train_ids)
    )
    return train_ids if has_train_ids and has_ids <= has_train_ids else ids


def _target_of(image: Path, path: Path, annotation: str, ending: str) -> Path:
    folder = path / annotation / image.parent.relative_to(path / "leftImg8bit")
    return folder / f"{image.stem.removesuffix(_IMAGE_ENDING)}{ending}.png"


def _train_ids() -> dict[int, int]:
    void = dict.fromkeys((-1, *range(_LAST_ID + 1), VOID), VOID)  # -1 (licence plate) is stored as 255 in 8-bit files
    return {**void, **{label: number for number, label in enumerate(_IDS)}}
