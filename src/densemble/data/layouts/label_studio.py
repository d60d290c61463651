"""Label Studio's JSON export with brush strokes and polygons, and its PNG masks.

Source: https://labelstud.io/guide/export
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from densemble.data.layouts.annotated import AnnotatedImages
from densemble.data.layouts.class_names import class_number, class_numbers, read_classes, with_background
from densemble.data.layouts.drawn_shapes import Brush, Ellipse, MaskFile, Polygons, ShapeDrawing, outline
from densemble.data.layouts.folders import ImageIndex, walk
from densemble.data.layouts.images_targets import BRUSH_EXPORT
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.read_files import read_json, well_formed
from densemble.errors import DataError
from densemble.shapes import Size
from densemble.storage.images import IMAGE_SUFFIXES

_LABEL_KEYS = ("brushlabels", "polygonlabels", "ellipselabels", "bitmasklabels", "labels")
_REGION_KEYS = ("x", "points", "rle", "vertices", "imageDataURL")  # a result with one of these is a region
DrawnShape = Brush | Ellipse | MaskFile | Polygons
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True)
class _Region:
    """One region of a task's annotation.

    Attributes:
        value: shape of the region.
        labels: class names, one or more.
        tag: name of the control that drew the region.
        image: name of the annotated image tag, if the export gives it.
        size: (H, W) of the annotated image.
    """

    value: dict[str, Any]
    labels: tuple[str, ...]
    tag: str
    image: str | None
    size: Size


def find(path: Path) -> Layout | None:
    """Find a JSON export in the folder, with the images anywhere below it.

    The annotation of a task is the ground truth, else the latest one. Brush strokes, polygons and ellipses are drawn
    in order; if a task has several images, each region is drawn on the image it belongs to. If a region has several
    labels, the first is on top. Rectangles and other shapes are counted and left out. A brush stroke without pixels is
    read from the PNG masks ``task-ID-annotation-ID-by-USER-TAG-LABEL-N.png``. Class 0 is the background, followed by
    the labels in ``classes.txt``, or by the used labels in alphabetical order.

    Raises:
        DataError: there are PNG masks but no JSON, the export is JSON-MIN, or it cannot be read.
    """
    masks = sorted(file for file in walk(path, (".png",)) if BRUSH_EXPORT.search(file.name))
    exports = [(file, tasks) for file in sorted(path.glob("*.json")) if (tasks := _open(file)) is not None]
    if not exports:
        if masks:
            raise DataError(
                f"'{path}' has Label Studio masks such as '{masks[0].name}' but not the JSON that assigns them to "
                "images; export the project as JSON too, and put the JSON beside the masks"
            )
        return None
    index = ImageIndex(path, without=BRUSH_EXPORT)
    images = AnnotatedImages(index)
    undrawn: Counter[str] = Counter()
    entries = [(file, task, list(_regions(file, task, undrawn))) for file, tasks in exports for task in tasks]
    drawn = sorted({label for _, _, regions in entries for region in regions for label in region.labels})
    classes = with_background(read_classes(path).names or drawn)
    numbers, masks_by_prefix = class_numbers(classes), _by_prefix(masks)
    if not drawn:
        raise DataError(f"'{exports[0][0]}' holds no brush strokes and no polygons; annotate with one of them")
    tags = {region.image for _, _, regions in entries for region in regions if region.image is not None}
    for file, task, regions in entries:
        with well_formed(file, "JSON export of Label Studio"):
            annotation = _selected_annotation(task)
            if annotation is None:
                continue
            prefix = f"task-{task.get('id')}-annotation-{annotation.get('id')}-by-"
            shapes = _shapes(regions, numbers, masks_by_prefix.get(prefix, ()))
            for url_name, image_tags in _images(task, regions, tags):
                name = _file_name(url_name, index)
                size = _common_size(task, [region for region in regions if region.image in image_tags])
                drawn_shapes = tuple(shape for image_tag, shape in shapes if image_tag in image_tags)
                images.add("all", name, file, ShapeDrawing(file, name, size, drawn_shapes))
    return images.layout("label studio", classes, undrawn=undrawn)


def _by_prefix(masks: Sequence[Path]) -> dict[str, list[Path]]:
    """Masks by the beginning of their names, which names task and annotation."""
    by_prefix: dict[str, list[Path]] = {}
    for mask in masks:
        prefix, found, _ = mask.name.partition("-by-")
        by_prefix.setdefault(prefix + found, []).append(mask)
    return by_prefix


def _open(path: Path) -> list[Any] | None:
    tasks = read_json(path)
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        return None
    if all("annotation_id" in task for task in tasks):
        raise DataError(f"'{path}' is the export JSON-MIN of Label Studio; export the project as JSON")
    return tasks if all("data" in task and "annotations" in task for task in tasks) else None


def _selected_annotation(task: dict[str, Any]) -> dict[str, Any] | None:
    finished = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
    return max(finished, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at", ""))), default=None)


def _regions(path: Path, task: dict[str, Any], undrawn: Counter[str]) -> Iterator[_Region]:
    """Yield the regions to draw; count the others by type in ``undrawn``."""
    with well_formed(path, "JSON export of Label Studio"):
        results = (_selected_annotation(task) or {"result": []})["result"]
        labelled = {result.get("id") for result in results if _labels(result) and result.get("id") is not None}
        for result in results:
            value, labels = result.get("value", {}), _labels(result)
            drawable = "points" in value or "radiusX" in value or value.get("format") == "rle"
            if labels and (drawable or result["type"] == "brushlabels"):
                size = (int(result["original_height"]), int(result["original_width"]))
                yield _Region(value, labels, str(result["from_name"]), result.get("to_name"), size)
            elif any(key in value for key in _REGION_KEYS) and (labels or result.get("id") not in labelled):
                shape_type = str(result["type"])
                undrawn[shape_type if labels or shape_type not in _LABEL_KEYS else f"{shape_type} without a label"] += 1


def _labels(result: dict[str, Any]) -> tuple[str, ...]:
    value = result.get("value", {})
    return tuple(str(label) for key in _LABEL_KEYS if key in value for label in value[key])


def _images(
    task: dict[str, Any], regions: Sequence[_Region], tags: Collection[str]
) -> Iterator[tuple[str, Collection[str | None]]]:
    """Yield the image files of a task with the names of the image tags that show them."""
    images = {key: name for key, value in task["data"].items() if (name := _image_name(value))}
    if not images:
        raise ValueError(f"task {task.get('id')} names no image")
    if len(images) == 1 or not tags:
        yield next(iter(images.values())), {None, *tags}
        return
    fields = {tag: _field(tag, list(images)) for tag in tags}
    unknown = sorted({region.image for region in regions if region.image and fields[region.image] is None})
    if unknown:
        raise ValueError(
            f"task {task.get('id')} has the images {', '.join(images)}, and regions on '{unknown[0]}', which is not "
            "one of them: give every image tag the name of its field"
        )
    for field in images:
        shown_by = {tag for tag in tags if fields[tag] == field}
        if shown_by:
            yield images[field], shown_by


def _field(tag: str, fields: Sequence[str]) -> str | None:
    """Find the data field that an image tag shows by comparing names; the export does not contain this link."""

    def key(name: str) -> str:
        return "".join(filter(str.isalnum, name)).lower()

    matches = [field for field in fields if key(field) == key(tag)]
    matches = matches or [field for field in fields if key(field) in key(tag) or key(tag) in key(field)]
    return matches[0] if len(matches) == 1 else None


def _common_size(task: dict[str, Any], regions: Sequence[_Region]) -> Size | None:
    sizes = {region.size for region in regions}
    if len(sizes) > 1:
        raise ValueError(f"regions of task {task.get('id')} belong to images of different sizes")
    return sizes.pop() if sizes else None


def _image_name(value: Any) -> str | None:
    """Extract the file from a URL such as ``/data/local-files/?d=day/1.jpg`` or ``/data/upload/1/1a2b3c4d-1.jpg``."""
    if not isinstance(value, str):
        return None
    address = urlsplit(value)
    name = parse_qs(address.query).get("d", [unquote(address.path)])[0]
    return name if name.lower().endswith(IMAGE_SUFFIXES) else None


def _file_name(name: str, index: ImageIndex) -> str:
    """Remove the prefix that an upload adds, as in ``1a2b3c4d-photo.jpg``, unless a file has this name."""
    folder, _, last = name.rpartition("/")
    return name if index.knows(last) else f"{folder}/{_UPLOAD_PREFIX.sub('', last)}"


def _shapes(
    regions: Sequence[_Region], numbers: Mapping[str, int], masks: Sequence[Path]
) -> list[tuple[str | None, DrawnShape]]:
    """Image tag and shape of each region and label, from bottom to top."""
    strokes: Counter[tuple[str, str]] = Counter()
    shapes: list[tuple[str | None, DrawnShape]] = []
    for region in regions:
        first, *others = (class_number(label, numbers) for label in region.labels)
        shape = _polygon_or_ellipse(region, first)
        if shape is None:
            key = (region.tag, region.labels[0])
            rle = region.value.get("rle")
            shape = Brush(first, bytes(list(rle))) if rle else MaskFile(first, _mask_file(region, strokes[key], masks))
            strokes[key] += 1
        shapes += [(region.image, part) for part in (*(replace(shape, label=number) for number in others), shape)]
    return shapes


def _polygon_or_ellipse(region: _Region, label: int) -> DrawnShape | None:
    """Polygon or ellipse of a region; its coordinates are percentages of the image width and height."""
    value, (height, width) = region.value, region.size
    if "points" in value:
        points = [(x * width / 100, y * height / 100) for x, y in value["points"]]
        return Polygons(label, (outline([number for point in points for number in point]),))
    if "radiusX" in value:
        center = (value["x"] * width / 100, value["y"] * height / 100)
        radii = (value["radiusX"] * width / 100, value["radiusY"] * height / 100)
        return Ellipse(label, center, radii, float(value.get("rotation", 0)))
    return None


def _mask_file(region: _Region, number: int, masks: Sequence[Path]) -> Path:
    ending = f"-{region.tag}-{region.labels[0]}-{number}.png"
    for mask in masks:
        if mask.name.endswith(ending):
            return mask
    raise ValueError(f"a brush stroke has no pixels, and no mask '...{ending}' lies beside the JSON")
