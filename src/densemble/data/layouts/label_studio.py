"""Label Studio's JSON export, with brush strokes and polygons, and its PNG masks beside it.

Source: https://labelstud.io/guide/export
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from densemble.data.layouts.annotated import AnnotatedPictures
from densemble.data.layouts.base import Layout
from densemble.data.layouts.class_names import class_number, read_classes, with_background
from densemble.data.layouts.folders import PictureIndex, walk
from densemble.data.layouts.images_targets import BRUSH_EXPORT
from densemble.data.layouts.reading import read_json, well_formed
from densemble.data.layouts.shapes import Brush, MaskFile, Polygons, Shape, ShapeDrawing, outline
from densemble.errors import DataError
from densemble.shapes import Size
from densemble.storage.images import IMAGE_SUFFIXES

_LABEL_KEYS = ("brushlabels", "polygonlabels", "labels")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True)
class _Region:
    """One region of a task's annotation."""

    value: dict[str, Any]
    label: str
    tag: str
    size: Size


def find(path: Path) -> Layout | None:
    """A JSON export in the folder, with the pictures anywhere below it.

    Of a task's annotations the ground truth is taken, else the latest. Brush strokes and polygons are drawn in their
    order; other shapes are no regions and are left out. A brush stroke without its pixels is looked for in the PNG
    masks ``task-ID-annotation-ID-by-USER-TAG-LABEL-N.png``. Class 0 is the background, then the labels by name.

    Raises:
        DataError: PNG masks without the JSON, the JSON-MIN export, or an export that cannot be read.
    """
    masks = sorted(file for file in walk(path, (".png",)) if BRUSH_EXPORT.search(file.name))
    exports = [(file, tasks) for file in sorted(path.glob("*.json")) if (tasks := _open(file)) is not None]
    if not exports:
        if masks:
            raise DataError(
                f"'{path}' has Label Studio masks such as '{masks[0].name}' but not the JSON that says which picture "
                "each belongs to; export the project as JSON too, and put it beside them"
            )
        return None
    index = PictureIndex(path, without=BRUSH_EXPORT)
    pictures = AnnotatedPictures(index)
    regions = [(file, task, list(_regions(file, task))) for file, tasks in exports for task in tasks]
    drawn = sorted({region.label for _, _, found in regions for region in found})
    classes = with_background(read_classes(path).names or drawn)
    if not drawn:
        raise DataError(f"'{exports[0][0]}' holds no brush strokes and no polygons; annotate with one of them")
    for file, task, found in regions:
        with well_formed(file, "JSON export of Label Studio"):
            annotation = _chosen(task)
            if annotation is not None:
                own = [mask for mask in masks if mask.name.startswith(_mask_prefix(task, annotation))]
                shapes = tuple(_shapes(found, classes, own))
                name, size = _as_stored(_picture_name(task), index), found[0].size if found else None
                pictures.add("all", name, file, ShapeDrawing(file, name, size, shapes))
    return pictures.layout("label studio", classes)


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


def _regions(path: Path, task: dict[str, Any]) -> Iterator[_Region]:
    with well_formed(path, "JSON export of Label Studio"):
        for result in (_chosen(task) or {"result": []})["result"]:
            value = result.get("value", {})
            labels = next((value[key] for key in _LABEL_KEYS if key in value), None)
            if labels and ("points" in value or value.get("format") == "rle" or result["type"] == "brushlabels"):
                size = (int(result["original_height"]), int(result["original_width"]))
                yield _Region(value, str(labels[0]), str(result["from_name"]), size)


def _picture_name(task: dict[str, Any]) -> str:
    """The file in a task's URL, such as ``/data/local-files/?d=day/1.jpg`` or ``/data/upload/1/1a2b3c4d-1.jpg``."""
    for value in task["data"].values():
        if not isinstance(value, str):
            continue
        address = urlsplit(value)
        name = parse_qs(address.query).get("d", [unquote(address.path)])[0]
        if name.lower().endswith(IMAGE_SUFFIXES):
            return name
    raise ValueError(f"task {task.get('id')} names no picture")


def _as_stored(name: str, index: PictureIndex) -> str:
    """``photo.jpg`` for ``1a2b3c4d-photo.jpg``, which an upload makes of it, where only the former is there."""
    folder, _, last = name.rpartition("/")
    return name if index.knows(last) else f"{folder}/{_UPLOAD_PREFIX.sub('', last)}"


def _mask_prefix(task: dict[str, Any], annotation: dict[str, Any]) -> str:
    return f"task-{task.get('id')}-annotation-{annotation.get('id')}-by-"


def _shapes(regions: Sequence[_Region], classes: Sequence[str], masks: Sequence[Path]) -> Iterator[Shape]:
    strokes: dict[tuple[str, str], int] = {}
    for region in regions:
        number, key = class_number(region.label, classes), (region.tag, region.label)
        if "points" in region.value:
            height, width = region.size
            points = [(x * width / 100, y * height / 100) for x, y in region.value["points"]]
            yield Polygons(number, (outline([value for point in points for value in point]),))
            continue
        count = strokes[key] = strokes.get(key, -1) + 1
        if region.value.get("rle"):
            yield Brush(number, bytes(list(region.value["rle"])))
        else:
            yield MaskFile(number, _mask_of(region, count, masks))


def _mask_of(region: _Region, count: int, masks: Sequence[Path]) -> Path:
    ending = f"-{region.tag}-{region.label}-{count}.png"
    for mask in masks:
        if mask.name.endswith(ending):
            return mask
    raise ValueError(f"a brush stroke has no pixels, and no mask '...{ending}' lies beside the JSON")
