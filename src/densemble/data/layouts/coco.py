"""COCO: JSON files of instances, which are drawn as label maps, or of panoptic segments.

Source: https://cocodataset.org/#format-data
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.data.layouts.annotated import AnnotatedImages
from densemble.data.layouts.class_names import VOID, class_number, class_numbers, require_distinct, with_background
from densemble.data.layouts.drawn_shapes import CompressedRuns, Polygons, Runs, Shape, ShapeDrawing, outline
from densemble.data.layouts.folders import ImageIndex, find_split, split_folders
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.panoptic import PANOPTIC_FOLDERS, PanopticDrawing, find_panoptic_folder
from densemble.data.layouts.read_files import read_json, well_formed
from densemble.errors import DataError

# Files of other tasks in annotations/ of the original download.
_OTHER_TASKS = ("captions", "person_keypoints", "stuff", "image_info")


@dataclass(frozen=True)
class _Annotations:
    """One JSON file."""

    path: Path
    content: dict[str, Any]
    split: str

    @property
    def is_panoptic(self) -> bool:
        with well_formed(self.path, "COCO file"):
            return any("segments_info" in annotation for annotation in self.content["annotations"])


def find(path: Path) -> Layout | None:
    """Find ``annotations/*.json``, or a JSON file beside the images, with keys images, annotations and categories.

    Categories are matched by name because files may number them differently. Instances: class 0 is the background,
    followed by the categories in the order of their ids; smaller regions are drawn over larger ones. Panoptic:
    categories from 0 in the order of their ids, void is 255. If both exist, the panoptic files are used. The split is
    read from the file name (``instances_train2017.json``) or the folder name (``train/``).

    Raises:
        DataError: a file cannot be read, or categories share a name or an id.
    """
    files = [annotations for file in _json_files(path) if (annotations := _open(file, path))]
    if not files:
        return None
    unnamed = [file.path.name for file in files if file.split == "all"]
    if unnamed and len(unnamed) < len(files):
        raise DataError(
            f"'{path}' has annotation files with and without a split in the name ({', '.join(unnamed)}); put train, "
            "val or test into the name of each"
        )
    panoptic = any(file.is_panoptic for file in files)
    if panoptic and not all(file.is_panoptic for file in files):
        raise DataError(f"'{path}' mixes panoptic and instance files; keep one type")
    names = _category_names(files)
    images = AnnotatedImages(ImageIndex(path, without=PANOPTIC_FOLDERS))
    for file in files:
        with well_formed(file.path, "COCO file"):
            _add_panoptic(file, names, path, images) if panoptic else _add_instances(file, names, images)
    if panoptic:
        return images.layout("coco", names, VOID)
    return images.layout("coco", with_background(names))


def _json_files(path: Path) -> list[Path]:
    folders = (path / "annotations", path, *split_folders(path).values())
    files = [file for folder in folders for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")]
    panoptic = [file for file in files if file.name.startswith("panoptic") and find_panoptic_folder(file, path)]
    instances = [file for file in files if file.name.startswith("instances")]
    return panoptic or instances or [file for file in files if not file.name.startswith(_OTHER_TASKS)]


def _open(path: Path, root: Path) -> _Annotations | None:
    content = read_json(path)
    if not isinstance(content, dict):
        return None
    if not all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
        return None
    folder = path.parent.relative_to(root).name  # the name of the root does not define a split
    return _Annotations(path, content, find_split(path.stem) or find_split(folder) or "all")


def _category_names(files: Iterable[_Annotations]) -> tuple[str, ...]:
    """Category names in the order of their ids; if files number a name differently, the lowest id counts."""
    lowest: dict[str, int] = {}
    for file in files:
        for number, name in _categories(file).items():
            lowest[name] = min(number, lowest.get(name, number))
    return tuple(sorted(lowest, key=lowest.__getitem__))


def _categories(file: _Annotations) -> dict[int, str]:
    """Category names by id in one file."""
    names: dict[int, str] = {}
    with well_formed(file.path, "COCO file"):
        for category in file.content["categories"]:
            number, name = int(category["id"]), str(category["name"])
            if names.setdefault(number, name) != name:
                raise DataError(
                    f"'{file.path}' calls category {number} '{name}' and '{names[number]}'; make them agree"
                )
    require_distinct(list(names.values()), file.path)
    return names


def _by_image(content: dict[str, Any]) -> dict[Any, list[Any]]:
    by_image: dict[Any, list[Any]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    return by_image


def _add_instances(file: _Annotations, names: Sequence[str], images: AnnotatedImages) -> None:
    annotations, numbers = _by_image(file.content), class_numbers(with_background(names))
    labels = {number: class_number(name, numbers) for number, name in _categories(file).items()}
    if file.content["annotations"] and not any(item.get("segmentation") for item in file.content["annotations"]):
        raise DataError(f"'{file.path}' holds boxes but no outlines; export the data set as segmentation")
    for image in file.content["images"]:
        largest_first = sorted(annotations[image["id"]], key=_area, reverse=True)
        shapes = tuple(_shape(item, labels[item["category_id"]], file.path) for item in largest_first)
        size = (int(image["height"]), int(image["width"]))
        name = str(image["file_name"])
        images.add(file.split, name, file.path, ShapeDrawing(file.path, name, size, shapes))


def _area(annotation: dict[str, Any]) -> float:
    if "area" in annotation:
        return float(annotation["area"])
    width, height = annotation["bbox"][2:]
    return float(width) * float(height)


def _shape(annotation: dict[str, Any], label: int, path: Path) -> Shape:
    segmentation = annotation.get("segmentation") or []
    if isinstance(segmentation, list):
        return Polygons(label, tuple(map(outline, segmentation)))
    counts, name = segmentation["counts"], f"annotation {annotation.get('id', '')}".strip()
    size = None
    if "size" in segmentation:
        height, width = map(int, segmentation["size"])
        size = (height, width)
    if isinstance(counts, str):
        return CompressedRuns(label, counts, size, name)
    return Runs(label, tuple(map(int, counts)), by_columns=True, drawn_for=size, name=name)


def _add_panoptic(file: _Annotations, names: Sequence[str], path: Path, images: AnnotatedImages) -> None:
    folder = find_panoptic_folder(file.path, path)
    if folder is None:
        raise DataError(f"'{file.path}' needs the folder '{file.path.stem}' of its PNG maps beside it; add it")
    numbers = class_numbers(names)
    labels = {number: numbers[name] for number, name in _categories(file).items()}
    annotations = _by_image(file.content)
    for image in file.content["images"]:
        for item in annotations[image["id"]]:
            segments = tuple((int(part["id"]), labels[part["category_id"]]) for part in item["segments_info"])
            drawing = PanopticDrawing(file.path, folder / Path(item["file_name"]).name, segments)
            images.add(file.split, str(image["file_name"]), file.path, drawing)
