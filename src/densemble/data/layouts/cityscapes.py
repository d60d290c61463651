"""Cityscapes: leftImg8bit/SPLIT/CITY beside gtFine/SPLIT/CITY."""

from collections.abc import Iterable
from pathlib import Path

from densemble.data.layouts.class_names import VOID
from densemble.data.layouts.folders import split_folders, walk
from densemble.data.layouts.layout import Layout, Sample

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
# https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/helpers/labels.py: ids by train id
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_LAST_ID = 33
_IMAGE_ENDING = "_leftImg8bit"


def find(path: Path) -> Layout | None:
    """``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` with ``gtFine`` (else ``gtCoarse``) ``*_labelIds.png``.

    ``*_labelTrainIds.png`` are preferred where every image with a map has one; else the label map gives the 19
    train ids, and 255 for the rest. The city is the group. ``train_extra`` joins train where the maps are coarse.
    """
    kind = next((name for name in ("gtFine", "gtCoarse") if (path / name).is_dir()), None)
    if kind is None or not (path / "leftImg8bit").is_dir():
        return None
    folders = {split: [folder.name] for split, folder in split_folders(path / "leftImg8bit").items()}
    if kind == "gtCoarse" and (path / "leftImg8bit" / "train_extra").is_dir():
        folders.setdefault("train", []).append("train_extra")
    images = {
        split: [image for name in names for image in walk(path / "leftImg8bit" / name, (f"{_IMAGE_ENDING}.png",))]
        for split, names in folders.items()
    }
    ending = _map_ending(path, kind, (image for split in images.values() for image in split))
    splits: dict[str, tuple[Sample, ...]] = {}
    unpaired: list[Path] = []
    for split, files in images.items():
        maps = {image: _map_of(image, path, ending) for image in files}
        unpaired += [image for image, target in maps.items() if not target.is_file()]
        for name in folders[split]:
            unpaired += set(walk(path / kind / name, (f"{ending}.png",))) - set(maps.values())
        splits[split] = tuple(
            Sample(image, target, group=image.parent.name, name=image.stem.removesuffix(_IMAGE_ENDING))
            for image, target in maps.items()
            if target.is_file()
        )
    label_map = None if ending.endswith("labelTrainIds") else _train_ids()
    return Layout(path, "cityscapes", splits, tuple(sorted(unpaired)), "folders", CITYSCAPES_CLASSES, VOID, label_map)


def _map_ending(path: Path, kind: str, images: Iterable[Path]) -> str:
    ids, train_ids = f"_{kind}_labelIds", f"_{kind}_labelTrainIds"
    mapped = [
        image for image in images if _map_of(image, path, ids).is_file() or _map_of(image, path, train_ids).is_file()
    ]
    return train_ids if mapped and all(_map_of(image, path, train_ids).is_file() for image in mapped) else ids


def _map_of(image: Path, path: Path, ending: str) -> Path:
    kind = ending.split("_")[1]
    place = path / kind / image.parent.relative_to(path / "leftImg8bit")
    return place / f"{image.stem.removesuffix(_IMAGE_ENDING)}{ending}.png"


def _train_ids() -> dict[int, int]:
    void = dict.fromkeys((-1, *range(_LAST_ID + 1), VOID), VOID)  # -1, the licence plate, is 255 in an 8-bit file
    return {**void, **{label: number for number, label in enumerate(_IDS)}}
