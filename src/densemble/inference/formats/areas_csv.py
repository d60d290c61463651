"""CSV: one row per image with the areas of the classes, statistics of the values, or the positions of the points."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from densemble.inference.formats.components import Components
from densemble.inference.formats.format import (
    Collector,
    Entry,
    FormatOptions,
    MapRows,
    OutputFacts,
    Record,
    class_planes,
    content_of,
)
from densemble.inference.formats.statistics import HighestPoints, ValueStatistics
from densemble.storage.csv_cells import write_csv
from densemble.storage.writing import atomic_text
from densemble.tasks import Task

_CLASS_COLUMNS = ("pixels", "share", "regions", "probability", "area_m2")
_VALUE_COLUMNS = ("mean", "min", "max", "sum")
_POINT_COLUMNS = ("x", "y", "confidence")


class ClassAreas:
    """Counts the pixels and the connected regions of each class."""

    def __init__(self, facts: OutputFacts) -> None:
        self._facts = facts
        self._known = 0
        self._planes = [
            Components() for _ in range(1 if content_of(facts.task) == "classes" else len(facts.task.classes))
        ]

    def add(self, rows: MapRows) -> None:
        """See :class:`Collector`."""
        self._known += rows.mean[0].size if rows.valid is None else int(rows.valid.sum())
        for components, (labels, probability) in zip(self._planes, class_planes(rows, self._facts.task), strict=True):
            components.add(labels, probability)

    def record(self) -> Record:
        """See :class:`Collector`."""
        georeference = self._facts.georeference
        metres = None if georeference is None else georeference.pixel_square_metres
        tables = [components.table() for components in self._planes]
        classes, pixels = (np.concatenate([getattr(t, name)[1:] for t in tables]) for name in ("classes", "pixels"))
        probability = np.concatenate([table.probability[1:] for table in tables])
        rows: list[dict[str, Any]] = []
        for number in range(len(self._facts.task.classes)):
            of_class = classes == number
            count = int(pixels[of_class].sum())
            mean = round(float((probability * pixels)[of_class].sum()) / count, 4) if count else None
            rows.append({
                "pixels": count, "share": round(count / self._known, 6) if self._known else None,
                "regions": int(of_class.sum()), "probability": mean,
                "area_m2": None if metres is None else float(f"{count * metres:.10g}"),
            })  # fmt: skip
        return {"size": list(self._facts.size), "pixels": self._known, "channels": rows}


def collect(facts: OutputFacts) -> Collector:
    """Collector of areas, values or points, as the task has them."""
    match content_of(facts.task):
        case "points":
            return HighestPoints(facts)
        case "values":
            return ValueStatistics(facts)
        case _:
            return ClassAreas(facts)


def write_areas(path: Path, entries: Iterable[Entry], task: Task, options: FormatOptions) -> None:
    """Write a header and one row per image; a cell without a value is empty."""
    columns = {"points": _POINT_COLUMNS, "values": _VALUE_COLUMNS}.get(content_of(task), _CLASS_COLUMNS)
    with atomic_text(path, newline="") as file:
        pixels = [] if columns is _POINT_COLUMNS else ["pixels"]
        names = [f"{prefix}{column}" for prefix in _prefixes(task) for column in columns]
        rows = ([entry.image, *entry.record["size"], *_cells(entry.record, columns)] for entry in entries)
        write_csv(file, chain([["image", "height", "width", *pixels, *names]], rows))


def _prefixes(task: Task) -> list[str]:
    if task.classes:
        return [f"{name}_" for name in task.classes]
    return [""] if task.out_channels == 1 else [f"channel{number}_" for number in range(task.out_channels)]


def _cells(record: Record, columns: tuple[str, ...]) -> Iterator[Any]:
    if "channels" in record:
        yield record["pixels"]
    for channel in record.get("channels") or record["points"]:
        yield from (channel[column] for column in columns)
