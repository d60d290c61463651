"""CVAT for images 1.1: one XML file with masks, or with a point per channel of a keypoint map.

Source: https://docs.cvat.ai/docs/dataset_management/formats/xml_format
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from densemble.inference.formats.format import Collector, Entry, FormatOptions, OutputFacts, content_of, foreground
from densemble.inference.formats.statistics import HighestPoints
from densemble.inference.formats.whole_map import Region, WholeMap
from densemble.storage.writing import atomic_text
from densemble.tasks import Task


def collect(facts: OutputFacts) -> Collector:
    """Collector of masks, or of points."""
    return HighestPoints(facts) if content_of(facts.task) == "points" else WholeMap(facts, _mask)


def _mask(region: Region, facts: OutputFacts) -> dict[str, Any]:
    flat = region.crop.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff([0, *ends.tolist(), flat.size]).tolist()
    height, width = region.crop.shape
    counts = ", ".join(map(str, [0, *runs] if flat[0] else runs))  # the first run is outside the region
    return {
        "label": facts.task.classes[region.number], "rle": counts, "left": region.left, "top": region.top,
        "width": width, "height": height,
    }  # fmt: skip


def write_cvat(path: Path, entries: Iterable[Entry], task: Task, options: FormatOptions) -> None:
    """Write the labels and, for each image, its masks or points."""
    points = content_of(task) == "points"
    meta = Element("meta")
    labels = SubElement(SubElement(meta, "task"), "labels")
    for number in foreground(task):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = task.classes[number]
        SubElement(label, "type").text = "points" if points else "mask"
        SubElement(label, "attributes")
    with atomic_text(path) as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        for element in (meta, *(_image(number, entry, points) for number, entry in enumerate(entries))):
            indent(element)
            file.write(tostring(element, encoding="unicode") + "\n")
        file.write("</annotations>\n")


def _image(number: int, entry: Entry, points: bool) -> Element:
    height, width = entry.record["size"]
    image = Element("image", {"id": str(number), "name": entry.image, "width": str(width), "height": str(height)})
    common = {"source": "auto", "occluded": "0", "z_order": "0"}
    for shape in entry.record["points"] if points else entry.record["regions"]:
        if not points:
            SubElement(image, "mask", {**{key: str(value) for key, value in shape.items()}, **common})
        elif shape["x"] is not None:
            # CVAT's (0, 0) is the corner of the first pixel, not its centre.
            position = f"{shape['x'] + 0.5:.2f},{shape['y'] + 0.5:.2f}"
            SubElement(image, "points", {"label": shape["label"], "points": position, **common})
    return image
