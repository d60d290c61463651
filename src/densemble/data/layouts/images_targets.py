"""Folders of images beside folders of targets, with split folders, split files or no split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densemble.data.layouts.class_names import read_classes
from densemble.data.layouts.folders import (
    Listing,
    list_files,
    pair_by_name,
    split_folders,
    subfolders,
    unused_below,
    walk,
)
from densemble.data.layouts.layout import Layout, Sample
from densemble.data.layouts.split_files import read_split_files, select
from densemble.errors import DataError
from densemble.storage.images import IMAGE_SUFFIXES, TARGET_SUFFIXES
from densemble.storage.points import POINT_SUFFIXES

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "inputs", "rgb")
TARGET_FOLDERS = (
    *("targets", "masks", "labels", "depth", "maps", "annotations", "gt", "density", "points"),
    *("target", "mask", "label", "map", "annotation"),
)
# If no target has the name of an image, one of these endings is removed from the target names.
_TARGET_ENDINGS = (
    "_mask",
    "_masks",
    "_label",
    "_labels",
    "_gt",
    "_depth",
    "_seg",
    "_map",
    "_target",
    "-mask",
    "-label",
)
_POINT_FOLDERS = ("targets", "target", "points")  # may hold tables of points instead of maps
# Masks of Label Studio; only the JSON export assigns them to images.
BRUSH_EXPORT = re.compile(r"task-\d+-annotation-\d+-by-[^/]*\.png$")


@dataclass(frozen=True)
class _Pairs:
    samples: tuple[Sample, ...]
    unpaired: tuple[Path, ...]
    doubled: tuple[tuple[Path, Path], ...]
    classes: tuple[str, ...] | None = None
    incomplete: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class _Folders:
    """A folder of images with its folders of targets and fixations, if they exist."""

    images: Path
    targets: Path | None
    points: Path | None

    @property
    def existing(self) -> tuple[Path, ...]:
        """The folders that exist."""
        return tuple(folder for folder in (self.images, self.targets, self.points) if folder is not None)


def find(path: Path) -> Layout | None:
    """Find ``{train,val,test}/{images,targets}``, ``{images,targets}/{train,val,test}`` or ``{images,targets}``.

    Split files beside flat folders define the splits; images that they do not list are left out.

    Raises:
        DataError: more than one folder of targets, or files that cannot be read.
    """
    by_split = _find_folders(path)
    if not any(folders.targets for folders in by_split.values()):
        return None
    # Public test images often come without targets. They are meant for prediction and are not an error.
    by_split = {split: folders for split, folders in by_split.items() if folders.targets or split != "test"}
    pairs = {split: _pair(folders) for split, folders in by_split.items()}
    splits = {split: part.samples for split, part in pairs.items()}
    incomplete = {split: part.incomplete for split, part in pairs.items()}
    unpaired = tuple(file for part in pairs.values() for file in part.unpaired)
    split_by = "none" if "all" in splits else "folders"
    lists = read_split_files(path) if split_by == "none" else {}
    if lists:
        incomplete, _ = select(lists, incomplete["all"], (), path, by_split["all"].images)
        splits, unpaired = select(lists, splits["all"], unpaired, path, by_split["all"].images)
        split_by = "files"
    classes = read_classes(path)
    layout = Layout(
        path,
        "images + targets",
        splits,
        unpaired,
        split_by,
        _class_names(path, classes.names, [part.classes for part in pairs.values() if part.classes is not None]),
        color_map=classes.colors,
        doubled=tuple(files for part in pairs.values() for files in part.doubled),
        incomplete={split: samples for split, samples in incomplete.items() if samples},
    )
    return replace(layout, unused=unused_below((f for folders in by_split.values() for f in folders.existing), layout))


def find_images(path: Path) -> tuple[Path, ...]:
    """Folders of images, with or without targets."""
    return tuple(folders.images for folders in _find_folders(path).values())


def _find_folders(path: Path) -> dict[str, _Folders]:
    outer = split_folders(path)
    inner = {split: images for split, folder in outer.items() if (images := _image_folder(folder))}
    if inner:
        return {split: _beside(images, outer[split]) for split, images in inner.items()}
    images = _image_folder(path)
    if images is None:
        return {}
    flat = _beside(images, path)
    nested = split_folders(images)
    if not nested:
        return {"all": flat}
    targets, points = (split_folders(folder) if folder else {} for folder in (flat.targets, flat.points))
    return {split: _Folders(folder, targets.get(split), points.get(split)) for split, folder in nested.items()}


def _image_folder(folder: Path) -> Path | None:
    children = subfolders(folder)
    return next((children[name] for name in IMAGE_FOLDERS if name in children), None)


def _beside(images: Path, folder: Path) -> _Folders:
    children = subfolders(folder)
    targets = [children[name] for name in TARGET_FOLDERS if name in children and _holds_targets(children[name])]
    if len(targets) > 1 and targets[0].name.lower() != "targets":
        names = ", ".join(target.name for target in targets)
        raise DataError(
            f"'{folder}' has several folders of targets ({names}); rename the one to use to 'targets', or name the "
            "pairs in a pairs.csv with the columns image,target"
        )
    return _Folders(images, targets[0] if targets else None, children.get("fixations"))


def _holds_targets(folder: Path) -> bool:
    if folder.name.lower() == "annotations" and any(folder.glob("*.json")):  # COCO, which may hold panoptic maps too
        return False
    return any(not BRUSH_EXPORT.search(file.name) for file in walk(folder, _target_suffixes(folder)))


def _target_suffixes(folder: Path) -> tuple[str, ...]:
    names = (folder.name.lower(), folder.parent.name.lower())  # points/ or points/train/
    return TARGET_SUFFIXES + POINT_SUFFIXES if any(name in _POINT_FOLDERS for name in names) else TARGET_SUFFIXES


def _pair(folders: _Folders) -> _Pairs:
    images = list_files(folders.images, IMAGE_SUFFIXES)
    points = list_files(folders.points, TARGET_SUFFIXES) if folders.points else Listing({}, ())
    if folders.targets is None:
        return _Pairs((), tuple(images.files.values()), images.doubled)
    if _has_plane_per_class(folders.targets, images):
        return _pair_planes(folders.targets, images)
    targets = list_files(folders.targets, _target_suffixes(folders.targets))
    pairs = pair_by_name(images.files, _without_ending(targets.files, images.files), points.files)
    return _Pairs(*pairs, images.doubled + targets.doubled + points.doubled)


def _without_ending(targets: dict[str, Path], images: dict[str, Path]) -> dict[str, Path]:
    if targets.keys() & images.keys():
        return targets
    for ending in _TARGET_ENDINGS:
        if all(name.endswith(ending) for name in targets):
            return {name.removesuffix(ending): file for name, file in targets.items()}
    return targets


def _has_plane_per_class(targets: Path, images: Listing) -> bool:
    """Whether the images lie directly in their folder and all targets lie in subfolders."""
    targets_are_nested = not any(file.parent == targets for file in walk(targets, _target_suffixes(targets)))
    return targets_are_nested and all(name == file.stem for name, file in images.files.items())


def _pair_planes(targets: Path, images: Listing) -> _Pairs:
    listings = {folder.name: list_files(folder, TARGET_SUFFIXES) for folder in sorted(subfolders(targets).values())}
    samples, incomplete, unpaired = [], [], []
    for name, image in sorted(images.files.items()):
        planes = tuple((label, listing.files[name]) for label, listing in listings.items() if name in listing.files)
        absent = tuple(label for label, listing in listings.items() if name not in listing.files)
        if absent:
            incomplete.append(Sample(image, targets, planes=planes, absent=absent))
            unpaired.append(image)
        else:
            samples.append(Sample(image, targets, planes=planes))
    for listing in listings.values():
        unpaired += [file for name, file in listing.files.items() if name not in images.files]
    doubled = images.doubled + tuple(files for listing in listings.values() for files in listing.doubled)
    return _Pairs(tuple(samples), tuple(unpaired), doubled, tuple(listings), tuple(incomplete))


def _class_names(
    path: Path, listed: tuple[str, ...] | None, class_folders: Sequence[tuple[str, ...]]
) -> tuple[str, ...] | None:
    """Class names from the class folders, which must be equal in all splits, else the listed names."""
    if class_folders and any(
        set(names) != set(class_folders[0]) for names in (*class_folders, listed or class_folders[0])
    ):
        raise DataError(
            f"the class folders of '{path}' differ between its splits, or from classes.txt; each split needs one "
            "folder for each class"
        )
    return class_folders[0] if class_folders else listed
