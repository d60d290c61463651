"""Label Studio's JSON export, with brush strokes and polygons, and its PNG masks beside it.

Source: https://labelstud.io/guide/export
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from densemble.data.layouts.annotated import AnnotatedImages
from densemble.data.layouts.class_names import class_number, read_classes, with_background
from densemble.data.layouts.drawn_shapes import Brush, Ellipse, MaskFile, Polygons, ShapeDrawing, outline
from densemble.data.layouts.folders import ImageIndex, walk
from densemble.data.layouts.images_targets import BRUSH_EXPORT
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.read_files import read_json, well_formed
from densemble.errors import DataError
from densemble.shapes import Size
from densemble.storage.images import IMAGE_SUFFIXES

_LABEL_KEYS = ("brushlabels", "polygonlabels", "ellipselabels", "bitmasklabels", "labels")
_PLACED = ("x", "points", "rle", "vertices", "imageDataURL")  # one of these makes a result a region, of whatever type
DrawnShape = Brush | Ellipse | MaskFile | Polygons
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True)
class _Region:
    """One region of a task's annotation.

    Attributes:
        value: its shape.
        labels: names of its classes, one or more.
        tag: name of the control that it was drawn with.
        image: name of the image tag that it was drawn on, if the export says it.
        size: (H, W) of that image.
    """

    value: dict[str, Any]
    labels: tuple[str, ...]
    tag: str
    image: str | None
    size: Size


def find(path: Path) -> Layout | None:
    """A JSON export in the folder, with the images anywhere below it.

    Of a task's annotations the ground truth is taken, else the latest. Brush strokes, polygons and ellipses are drawn
    in their order, each on its own image where a task has several; of a region with several labels the first lies on
    top. Rectangles and other shapes are counted and left out. A brush stroke without its pixels is looked for in the
    PNG masks ``task-ID-annotation-ID-by-USER-TAG-LABEL-N.png``. Class 0 is the background, then the labels in
    ``classes.txt``, else those that occur by name.

    Raises:
        DataError: PNG masks without the JSON, the JSON-MIN export, or an export that cannot be read.
    """
    masks = sorted(file for file in walk(path, (".png",)) if BRUSH_EXPORT.search(file.name))
    exports = [(file, tasks) for file in sorted(path.glob("*.json")) if (tasks := _open(file)) is not None]
    if not exports:
        if masks:
            raise DataError(
                f"'{path}' has Label Studio masks such as '{masks[0].name}' but not the JSON that says which image "
                "each belongs to; export the project as JSON too, and put it beside them"
            )
        return None
    index = ImageIndex(path, without=BRUSH_EXPORT)
    images = AnnotatedImages(index)
    undrawn: Counter[str] = Counter()
    regions = [(file, task, list(_regions(file, task, undrawn))) for file, tasks in exports for task in tasks]
    drawn = sorted({label for _, _, found in regions for region in found for label in region.labels})
    classes = with_background(read_classes(path).names or drawn)
    if not drawn:
        raise DataError(f"'{exports[0][0]}' holds no brush strokes and no polygons; annotate with one of them")
    tags = {region.image for _, _, found in regions for region in found if region.image is not None}
    for file, task, found in regions:
        with well_formed(file, "JSON export of Label Studio"):
            annotation = _chosen(task)
            if annotation is None:
                continue
            own = [mask for mask in masks if mask.name.startswith(_mask_prefix(task, annotation))]
            shapes = list(zip(found, _shapes(found, classes, own), strict=True))
            for shown, on in _images(task, found, tags):
                name = _as_stored(shown, index)
                size = _common_size(task, [region for region in found if region.image in on])
                parts = tuple(shape for region, several in shapes if region.image in on for shape in several)
                images.add("all", name, file, ShapeDrawing(file, name, size, parts))
    return images.layout("label studio", classes, undrawn=undrawn)


def _open(path: Path) -> list[Any] | None:
    tasks = read_json(path)
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        return None
    if all("annotation_id" in task for task in tasks):
        raise DataError(f"'{path}' is the export JSON-MIN of Label Studio; export the project as JSON")
    return tasks if all("data" in task and "annotations" in task for task in tasks) else None


def _chosen(task: dict[str, Any]) -> dict[str, Any] | None:
    done = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
    return max(done, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at", ""))), default=None)


def _regions(path: Path, task: dict[str, Any], undrawn: Counter[str]) -> Iterator[_Region]:
    """The regions that are drawn; the others are counted by their type."""
    with well_formed(path, "JSON export of Label Studio"):
        results = (_chosen(task) or {"result": []})["result"]
        labelled = {one.get("id") for one in results if _labels(one) and one.get("id") is not None}
        for result in results:
            value, labels = result.get("value", {}), _labels(result)
            shaped = "points" in value or "radiusX" in value or value.get("format") == "rle"
            if labels and (shaped or result["type"] == "brushlabels"):
                size = (int(result["original_height"]), int(result["original_width"]))
                yield _Region(value, labels, str(result["from_name"]), result.get("to_name"), size)
            elif any(key in value for key in _PLACED) and (labels or result.get("id") not in labelled):
                kind = str(result["type"])
                undrawn[kind if labels or kind not in _LABEL_KEYS else f"{kind} without a label"] += 1


def _labels(result: dict[str, Any]) -> tuple[str, ...]:
    value = result.get("value", {})
    return tuple(str(label) for key in _LABEL_KEYS if key in value for label in value[key])


def _images(
    task: dict[str, Any], regions: Sequence[_Region], tags: Collection[str]
) -> Iterator[tuple[str, Collection[str | None]]]:
    """The image files of a task, each with the names of the image tags that show it."""
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
            f"task {task.get('id')} has the images {', '.join(images)}, and regions on '{unknown[0]}', which is none "
            "of them: give every image tag the name of its field"
        )
    for field in images:
        shown_by = {tag for tag in tags if fields[tag] == field}
        if shown_by:
            yield images[field], shown_by


def _field(tag: str, fields: Sequence[str]) -> str | None:
    """The field of the data that an image tag shows: the export does not say it, but they are called alike."""

    def spelled(name: str) -> str:
        return "".join(filter(str.isalnum, name)).lower()

    alike = [field for field in fields if spelled(field) == spelled(tag)]
    alike = alike or [field for field in fields if spelled(field) in spelled(tag) or spelled(tag) in spelled(field)]
    return alike[0] if len(alike) == 1 else None


def _common_size(task: dict[str, Any], regions: Sequence[_Region]) -> Size | None:
    sizes = {region.size for region in regions}
    if len(sizes) > 1:
        raise ValueError(f"regions of task {task.get('id')} are of images of different sizes")
    return sizes.pop() if sizes else None


def _image_name(value: Any) -> str | None:
    """The file in a task's URL, such as ``/data/local-files/?d=day/1.jpg`` or ``/data/upload/1/1a2b3c4d-1.jpg``."""
    if not isinstance(value, str):
        return None
    address = urlsplit(value)
    name = parse_qs(address.query).get("d", [unquote(address.path)])[0]
    return name if name.lower().endswith(IMAGE_SUFFIXES) else None


def _as_stored(name: str, index: ImageIndex) -> str:
    """``photo.jpg`` for ``1a2b3c4d-photo.jpg``, which an upload makes of it, where only the former is there."""
    folder, _, last = name.rpartition("/")
    return name if index.knows(last) else f"{folder}/{_UPLOAD_PREFIX.sub('', last)}"


def _mask_prefix(task: dict[str, Any], annotation: dict[str, Any]) -> str:
    return f"task-{task.get('id')}-annotation-{annotation.get('id')}-by-"


def _shapes(
    regions: Sequence[_Region], classes: Sequence[str], masks: Sequence[Path]
) -> Iterator[tuple[DrawnShape, ...]]:
    """Of each region one shape for each of its labels."""
    strokes: dict[tuple[str, str], int] = {}
    for region in regions:
        first, *others = (class_number(label, classes) for label in region.labels)
        shape = _outlined(region, first)
        if shape is None:
            key = (region.tag, region.labels[0])
            count = strokes[key] = strokes.get(key, -1) + 1
            rle = region.value.get("rle")
            shape = Brush(first, bytes(list(rle))) if rle else MaskFile(first, _mask_of(region, count, masks))
        yield (*(replace(shape, label=number) for number in others), shape)


def _outlined(region: _Region, label: int) -> DrawnShape | None:
    """Polygon or ellipse; numbers are percent of the image's width and height."""
    value, (height, width) = region.value, region.size
    if "points" in value:
        points = [(x * width / 100, y * height / 100) for x, y in value["points"]]
        return Polygons(label, (outline([number for point in points for number in point]),))
    if "radiusX" in value:
        center = (value["x"] * width / 100, value["y"] * height / 100)
        radii = (value["radiusX"] * width / 100, value["radiusY"] * height / 100)
        return Ellipse(label, center, radii, float(value.get("rotation", 0)))
    return None


def _mask_of(region: _Region, count: int, masks: Sequence[Path]) -> Path:
    ending = f"-{region.tag}-{region.labels[0]}-{count}.png"
    for mask in masks:
        if mask.name.endswith(ending):
            return mask
    raise ValueError(f"a brush stroke has no pixels, and no mask '...{ending}' lies beside the JSON")
