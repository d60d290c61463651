"""Statistics of maps of values and of points, collected from rows."""

import math
from typing import Any

import numpy as np

from densemble.inference.formats.format import MapRows, OutputFacts, Record
from densemble.shapes import Array


class ValueStatistics:
    """Mean, least, largest value and sum of each channel over the pixels with data."""

    def __init__(self, facts: OutputFacts) -> None:
        self._facts = facts
        channels = facts.task.out_channels
        self._count = np.zeros(channels, np.int64)
        self._sum = np.zeros(channels)
        self._least, self._largest = np.full(channels, math.inf), np.full(channels, -math.inf)

    def add(self, rows: MapRows) -> None:
        """See :class:`Collector`."""
        for channel, plane in enumerate(rows.mean):
            values = _known(plane, rows.valid)
            values = values[np.isfinite(values)]
            if values.size:
                self._count[channel] += values.size
                self._sum[channel] += values.sum(dtype=np.float64)
                self._least[channel] = min(self._least[channel], float(values.min()))
                self._largest[channel] = max(self._largest[channel], float(values.max()))

    def record(self) -> Record:
        """See :class:`Collector`; channels without data have ``None``."""
        rows: list[dict[str, Any]] = []
        means = self._sum / np.maximum(self._count, 1)
        columns = {"mean": means, "min": self._least, "max": self._largest, "sum": self._sum}
        for channel, count in enumerate(self._count):
            values = {name: float(f"{column[channel]:.6g}") for name, column in columns.items()}
            rows.append(values if count else dict.fromkeys(columns))
        return {"size": list(self._facts.size), "pixels": int(self._count.max()), "channels": rows}


class HighestPoints:
    """The highest pixel of each channel of a keypoint map; (0, 0) is the centre of the first pixel."""

    def __init__(self, facts: OutputFacts) -> None:
        self._facts = facts
        self._best: list[tuple[float, int, int] | None] = [None] * facts.task.out_channels

    def add(self, rows: MapRows) -> None:
        """See :class:`Collector`."""
        for channel, plane in enumerate(rows.mean):
            heat = plane if rows.valid is None else np.where(rows.valid, plane, -math.inf)
            y, x = np.unravel_index(int(heat.argmax()), heat.shape)
            height, best = float(heat[y, x]), self._best[channel]
            if math.isfinite(height) and (best is None or height > best[0]):
                self._best[channel] = height, rows.top + int(y), int(x)

    def record(self) -> Record:
        """See :class:`Collector`; a channel without data has ``None``."""
        points = []
        for label, best in zip(self._facts.task.classes, self._best, strict=True):
            confidence, y, x = best or (None, None, None)
            rounded = None if confidence is None else round(confidence, 4)
            points.append({"label": label, "x": x, "y": y, "confidence": rounded})
        return {"size": list(self._facts.size), "points": points}


def _known(plane: Array, valid: Array | None) -> Array:
    return plane.ravel() if valid is None else plane[valid]
