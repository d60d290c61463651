"""COCO: one JSON file with the images and an annotation for each region, as runs (RLE) or as polygons.

Source: https://cocodataset.org/#format-data and #format-results
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np

from densemble.errors import UsageError
from densemble.inference.formats.format import Collector, Entry, FormatOptions, OutputFacts, foreground
from densemble.inference.formats.outlines import outlines
from densemble.inference.formats.whole_map import Region, WholeMap
from densemble.storage.writing import atomic_text
from densemble.tasks import Task


def require_pycocotools() -> ModuleType:
    """Import pycocotools' codec of masks.

    Raises:
        UsageError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UsageError(
            "COCO files need the package pycocotools: install it with pip install 'densemble[coco]'"
        ) from error
    codec: ModuleType = mask
    return codec


def collect_runs(facts: OutputFacts) -> Collector:
    """Collector of annotations with compressed runs."""
    return WholeMap(facts, _with_runs)


def collect_polygons(facts: OutputFacts) -> Collector:
    """Collector of annotations with polygons."""
    return WholeMap(facts, _with_polygons)


def _with_runs(region: Region, facts: OutputFacts) -> dict[str, Any]:
    runs = require_pycocotools().encode(np.asfortranarray(region.mask(facts.size).astype(np.uint8)))
    height, width = facts.size
    return _annotation(region, {"size": [height, width], "counts": runs["counts"].decode("ascii")})


def _with_polygons(region: Region, facts: OutputFacts) -> dict[str, Any]:
    return _annotation(region, [
        [coordinate for x, y in outline for coordinate in (region.left + x, region.top + y)]
        for outline in outlines(region.crop)
    ])  # fmt: skip


def _annotation(region: Region, segmentation: Any) -> dict[str, Any]:
    height, width = region.crop.shape
    return {
        "category_id": region.number + 1, "segmentation": segmentation, "area": int(region.crop.sum()),
        "bbox": [region.left, region.top, width, height], "iscrowd": 0, "score": region.probability,
    }  # fmt: skip


def write_coco(path: Path, entries: Iterable[Entry], task: Task, options: FormatOptions) -> None:
    """Write images and annotations, numbered from 1 in order; the id of a category is the number of its class + 1."""
    numbered = [(number, task.classes[number]) for number in foreground(task)]
    start = {
        "info": {"description": f"predictions of densemble, task {task.name}"}, "licenses": [],
        "categories": [{"id": number + 1, "name": name, "supercategory": ""} for number, name in numbered],
    }  # fmt: skip
    with atomic_text(path) as file:
        file.write(json.dumps(start, ensure_ascii=False)[:-1])
        _write_list(file, "images", _images(entries))
        _write_list(file, "annotations", _annotations(entries))
        file.write("}\n")


def _write_list(file: TextIO, key: str, values: Iterable[dict[str, Any]]) -> None:
    file.write(f',\n"{key}": [')
    for number, value in enumerate(values):
        file.write(("," if number else "") + "\n" + json.dumps(value, ensure_ascii=False))
    file.write("]")


def _images(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(entries, start=1):
        height, width = entry.record["size"]
        yield {"id": number, "file_name": entry.image, "width": width, "height": height}


def _annotations(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, entry in enumerate(entries, start=1):
        for region in entry.record["regions"]:
            number += 1
            yield {"id": number, "image_id": image, **region}
