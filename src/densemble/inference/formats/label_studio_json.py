"""Label Studio: a file of tasks with predictions as brush strokes, to be imported into a project.

Source: https://labelstud.io/guide/predictions
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from densemble.data.layouts.brush import encode_brush
from densemble.inference.formats.format import Collector, Entry, FormatOptions, OutputFacts
from densemble.inference.formats.whole_map import Region, WholeMap
from densemble.storage.writing import atomic_text
from densemble.tasks import Task


def collect(facts: OutputFacts) -> Collector:
    """Collector of brush strokes."""
    return WholeMap(facts, _stroke)


def _stroke(region: Region, facts: OutputFacts) -> dict[str, Any]:
    return {
        "label": facts.task.classes[region.number], "rle": list(encode_brush(region.mask(facts.size))),
        "score": region.probability, "pixels": int(region.crop.sum()),
    }  # fmt: skip


def write_tasks(path: Path, entries: Iterable[Entry], task: Task, options: FormatOptions) -> None:
    """Write one task per image; its score is the mean probability over the pixels of all strokes."""
    with atomic_text(path) as file:
        file.write("[")
        for number, entry in enumerate(entries):
            file.write(("," if number else "") + "\n" + json.dumps(_task(entry, options), ensure_ascii=False))
        file.write("\n]\n")


def _task(entry: Entry, options: FormatOptions) -> dict[str, Any]:
    strokes = entry.record["regions"]
    pixels = sum(stroke["pixels"] for stroke in strokes)
    score = sum(stroke["score"] * stroke["pixels"] for stroke in strokes) / max(pixels, 1)
    prediction = {
        "model_version": options.model_version or "densemble", "score": round(score, 4),
        "result": [_result(entry, number, options) for number in range(len(strokes))],
    }  # fmt: skip
    return {"data": {options.data_key: options.image_url + entry.image}, "predictions": [prediction]}


def _result(entry: Entry, number: int, options: FormatOptions) -> dict[str, Any]:
    stroke, (height, width) = entry.record["regions"][number], entry.record["size"]
    identifier = hashlib.sha256(f"{entry.image} {number}".encode()).hexdigest()[:10]  # equal in every run
    return {
        "id": identifier, "type": "brushlabels", "from_name": options.from_name, "to_name": options.to_name,
        "original_width": width, "original_height": height, "image_rotation": 0, "score": stroke["score"],
        "value": {"format": "rle", "rle": stroke["rle"], "brushlabels": [stroke["label"]]},
    }  # fmt: skip
