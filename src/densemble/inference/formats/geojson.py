"""GeoJSON: a file per image with a polygon for each connected region, in the coordinates of the raster or in WGS84.

Source: https://datatracker.ietf.org/doc/html/rfc7946, and the member ``crs`` of https://geojson.org/geojson-spec
"""

import json
import logging
from collections.abc import Iterable, Iterator
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
    foreground,
)
from densemble.shapes import Array
from densemble.storage.arrays import temporary_array
from densemble.storage.geo import polygons
from densemble.storage.writing import atomic_text
from densemble.tasks import Task

_ROWS = 256

log = logging.getLogger(__name__)


class RegionRaster:
    """Collects a raster of region numbers, in a temporary file if the map comes in several parts.

    The file takes 4 bytes per pixel and plane in the folder of the output, and has no name.
    """

    def __init__(self, facts: OutputFacts) -> None:
        self._facts = facts
        self._shown = foreground(facts.task)
        self._planes: list[tuple[Components, Array]] = []

    def add(self, rows: MapRows) -> None:
        """See :class:`Collector`."""
        planes = class_planes(rows, self._facts.task)
        if not self._planes:
            self._planes = [(Components(), self._raster(labels.shape[0])) for labels, _ in planes]
        for (components, raster), (labels, probability) in zip(self._planes, planes, strict=True):
            shown = np.where(np.isin(labels, self._shown), labels, np.int32(-1))
            raster[rows.top : rows.top + len(labels)] = components.add(shown, probability)

    def _raster(self, height: int) -> Array:
        if height == self._facts.size[0]:
            return np.zeros(self._facts.size, np.int32)
        return temporary_array(self._facts.folder, np.int32, self._facts.size)

    def record(self) -> Record:
        """See :class:`Collector`; the features are an iterator."""
        georeference = self._facts.georeference
        wgs84 = georeference is not None and georeference.crs is not None and self._facts.options.crs == "wgs84"
        name = None if georeference is None else georeference.crs_name
        if georeference is not None and georeference.crs is not None and name is None and not wgs84:
            wgs84 = True
            log.info(f"'{self._facts.path}': its reference system has no registered code; polygons are in WGS84")
        named = None if name is None else {"type": "name", "properties": {"name": name}}
        return {"crs": {} if wgs84 else {"crs": named}, "features": self._features(wgs84)}

    def _features(self, wgs84: bool) -> Iterator[dict[str, Any]]:
        georeference, names = self._facts.georeference, self._facts.task.classes
        area = 1.0 if georeference is None else georeference.pixel_area
        for components, raster in self._planes:
            table = components.table()
            for top in range(0, len(raster), _ROWS):
                raster[top : top + _ROWS] = table.numbers[raster[top : top + _ROWS]]
            for geometry, number in polygons(raster, georeference, wgs84):
                label, pixels = int(table.classes[number]), int(table.pixels[number])
                properties = {
                    "class": names[label], "class_id": label, "pixels": pixels, "area": pixels * area,
                    "probability": round(float(table.probability[number]), 4),
                }  # fmt: skip
                rings = [_oriented(ring, index == 0) for index, ring in enumerate(geometry["coordinates"])]
                yield {
                    "type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": rings}
                }  # fmt: skip


def collect(facts: OutputFacts) -> Collector:
    """Collector of polygons."""
    return RegionRaster(facts)


def _oriented(ring: list[tuple[float, float]], counterclockwise: bool) -> list[tuple[float, float]]:
    """The ring in the direction that RFC 7946 asks for: outer rings counterclockwise, holes clockwise."""
    x, y = (np.array(axis) - axis[0] for axis in zip(*ring, strict=True))
    doubled_area = float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
    return ring if (doubled_area > 0) == counterclockwise else ring[::-1]


def write_geojson(path: Path, entries: Iterable[Entry], task: Task, options: FormatOptions) -> None:
    """Write one FeatureCollection; the member ``crs`` is absent for WGS84, and ``null`` without a reference system."""
    (entry,) = entries
    start = {"type": "FeatureCollection", "name": entry.image, **entry.record["crs"]}
    with atomic_text(path) as file:
        file.write(json.dumps(start, ensure_ascii=False)[:-1] + ', "features": [')
        for number, feature in enumerate(entry.record["features"]):
            file.write(("," if number else "") + "\n" + json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")
