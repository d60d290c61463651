"""Folders of images beside folders of maps, with split folders, split files or no split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densemble.data.layouts.class_names import read_classes
from densemble.data.layouts.folders import Listing, list_files, split_folders, subfolders, unused_below, walk
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
# One of these is dropped from the names of the maps when no map is called like an image.
_MAP_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt", "_depth", "_seg", "_map", "_target", "-mask", "-label")
_POINT_FOLDERS = ("targets", "target", "points")  # may hold tables of points instead of maps
BRUSH_EXPORT = re.compile(r"task-\d+-annotation-\d+-by-[^/]*\.png$")  # masks that only their JSON can assign


@dataclass(frozen=True)
class _Pairs:
    samples: tuple[Sample, ...]
    unpaired: tuple[Path, ...]
    doubled: tuple[tuple[Path, Path], ...]
    classes: tuple[str, ...] | None = None
    incomplete: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class _Place:
    """A folder of images, its folder of maps and, perhaps, its folder of fixations."""

    images: Path
    targets: Path | None
    points: Path | None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that are there."""
        return tuple(folder for folder in (self.images, self.targets, self.points) if folder is not None)


def find(path: Path) -> Layout | None:
    """``{train,val,test}/{images,targets}``, ``{images,targets}/{train,val,test}`` or ``{images,targets}``.

    Split files beside flat folders are followed; images that they do not list are left out.

    Raises:
        DataError: more than one folder of maps, or files that cannot be read.
    """
    places = _find_places(path)
    if not any(place.targets for place in places.values()):
        return None
    # Test images often come without maps, which somebody else keeps: they are there to be predicted.
    places = {split: place for split, place in places.items() if place.targets or split != "test"}
    pairs = {split: _pair(place) for split, place in places.items()}
    splits = {split: found.samples for split, found in pairs.items()}
    incomplete = {split: found.incomplete for split, found in pairs.items()}
    unpaired = tuple(file for found in pairs.values() for file in found.unpaired)
    split_by = "none" if "all" in splits else "folders"
    lists = read_split_files(path) if split_by == "none" else {}
    if lists:
        incomplete, _ = select(lists, incomplete["all"], (), path, places["all"].images)
        splits, unpaired = select(lists, splits["all"], unpaired, path, places["all"].images)
        split_by = "files"
    listed = read_classes(path)
    layout = Layout(
        path,
        "images + targets",
        splits,
        unpaired,
        split_by,
        _agreed_classes(path, listed.names, {split: found.classes for split, found in pairs.items()}),
        color_map=listed.colors,
        doubled=tuple(files for found in pairs.values() for files in found.doubled),
        incomplete={split: samples for split, samples in incomplete.items() if samples},
    )
    folders = [folder for place in places.values() for folder in place.folders]
    return replace(layout, unused=unused_below(folders, layout))


def find_images(path: Path) -> tuple[Path, ...]:
    """The folders of images, whether or not there are maps beside them."""
    return tuple(place.images for place in _find_places(path).values())


def _find_places(path: Path) -> dict[str, _Place]:
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
    return {split: _Place(folder, targets.get(split), points.get(split)) for split, folder in nested.items()}


def _image_folder(folder: Path) -> Path | None:
    inside = subfolders(folder)
    return next((inside[name] for name in IMAGE_FOLDERS if name in inside), None)


def _beside(images: Path, folder: Path) -> _Place:
    inside = subfolders(folder)
    found = [inside[name] for name in TARGET_FOLDERS if name in inside and _holds_maps(inside[name])]
    if len(found) > 1 and found[0].name.lower() != "targets":
        names = ", ".join(place.name for place in found)
        raise DataError(
            f"'{folder}' has several folders of maps ({names}); rename the wanted one to 'targets', or name the pairs "
            "in a pairs.csv with the columns image,target"
        )
    return _Place(images, found[0] if found else None, inside.get("fixations"))


def _holds_maps(folder: Path) -> bool:
    if folder.name.lower() == "annotations" and any(folder.glob("*.json")):  # COCO, which may hold panoptic maps too
        return False
    return any(not BRUSH_EXPORT.search(file.name) for file in walk(folder, _map_suffixes(folder)))


def _map_suffixes(folder: Path) -> tuple[str, ...]:
    named = (folder.name.lower(), folder.parent.name.lower())  # points/ or points/train/
    return TARGET_SUFFIXES + POINT_SUFFIXES if any(name in _POINT_FOLDERS for name in named) else TARGET_SUFFIXES


def _pair(place: _Place) -> _Pairs:
    images = list_files(place.images, IMAGE_SUFFIXES)
    points = list_files(place.points, TARGET_SUFFIXES) if place.points else Listing({}, ())
    if place.targets is None:
        return _Pairs((), tuple(images.files.values()), images.doubled)
    if _has_plane_per_class(place.targets, images):
        return _pair_planes(place.targets, images)
    targets = list_files(place.targets, _map_suffixes(place.targets))
    maps = _without_ending(targets.files, images.files)
    both = sorted(images.files.keys() & maps.keys())
    samples = tuple(
        Sample(images.files[name], maps[name], points.files.get(name), name=_only_if_nested(name, images.files[name]))
        for name in both
    )
    return _Pairs(samples, _alone(images.files, maps), images.doubled + targets.doubled + points.doubled)


def _alone(images: dict[str, Path], maps: dict[str, Path]) -> tuple[Path, ...]:
    without_map = [images[name] for name in sorted(images.keys() - maps.keys())]
    return (*without_map, *(maps[name] for name in sorted(maps.keys() - images.keys())))


def _only_if_nested(name: str, image: Path) -> str | None:
    return None if name == image.stem else name


def _without_ending(maps: dict[str, Path], images: dict[str, Path]) -> dict[str, Path]:
    if maps.keys() & images.keys():
        return maps
    for ending in _MAP_ENDINGS:
        if all(name.endswith(ending) for name in maps):
            return {name.removesuffix(ending): file for name, file in maps.items()}
    return maps


def _has_plane_per_class(targets: Path, images: Listing) -> bool:
    """Flat images beside maps that all lie in sub-folders."""
    maps_are_nested = not any(file.parent == targets for file in walk(targets, _map_suffixes(targets)))
    return maps_are_nested and all(name == file.stem for name, file in images.files.items())


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


def _agreed_classes(
    path: Path, listed: tuple[str, ...] | None, planes: dict[str, tuple[str, ...] | None]
) -> tuple[str, ...] | None:
    """The listed classes; where each class has a folder, those, which must be the same in every split."""
    found: Sequence[tuple[str, ...]] = [names for names in planes.values() if names is not None]
    if any(set(names) != set(found[0]) for names in found) or (listed and found and set(listed) != set(found[0])):
        raise DataError(
            f"the class folders of '{path}' differ between its splits, or from classes.txt; each split needs one "
            "folder for each class"
        )
    return found[0] if found else listed
