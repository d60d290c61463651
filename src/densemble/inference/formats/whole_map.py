"""WholeMap: collects the map of an image in memory and gives its regions to a format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from densemble.inference.formats.components import Components
from densemble.inference.formats.format import MapRows, OutputFacts, Record, class_planes, foreground
from densemble.shapes import Array, Size

MOST_PIXELS = 1 << 26
"""Most pixels of a map in memory, summed over its planes; each takes 8 bytes."""


@dataclass(frozen=True)
class Region:
    """Pixels of one class, or one connected component of them.

    Attributes:
        number: number of the class.
        top: first row of its bounding box.
        left: first column of its bounding box.
        crop: the region within its bounding box, bool ``(h, w)``.
        probability: mean probability of the class, rounded to 4 digits.
    """

    number: int
    top: int
    left: int
    crop: Array
    probability: float

    def mask(self, size: Size) -> Array:
        """The region in an image of ``size`` (H, W), bool ``(H, W)``."""
        mask = np.zeros(size, bool)
        mask[self.top : self.top + self.crop.shape[0], self.left : self.left + self.crop.shape[1]] = self.crop
        return mask


class WholeMap:
    """Collects a map of classes or masks; regions of the class ``background`` are left out.

    Args:
        facts: the image.
        encode: converts a region to the JSON values of the format.
    """

    def __init__(self, facts: OutputFacts, encode: Callable[[Region, OutputFacts], dict[str, Any]]) -> None:
        self._facts = facts
        self._encode = encode
        self._rows: list[list[tuple[Array, Array]]] = []

    def add(self, rows: MapRows) -> None:
        """See :class:`Collector`."""
        self._rows.append(class_planes(rows, self._facts.task))

    def record(self) -> Record:
        """See :class:`Collector`."""
        regions = (self._encode(region, self._facts) for region in self._regions())
        return {"size": list(self._facts.size), "regions": list(regions)}

    def _regions(self) -> Iterator[Region]:
        """Regions in the order of their classes."""
        shown = foreground(self._facts.task)
        for parts in zip(*self._rows, strict=True):
            labels, probability = (np.concatenate(rows) for rows in zip(*parts, strict=True))
            if not self._facts.options.components:
                ids, present = labels + 1, [number for number in np.unique(labels) if number in shown]
                boxes = ndimage.find_objects(ids)
                for number in present:
                    yield _region(int(number), boxes[number], ids == number + 1, probability)
                continue
            components = Components()
            ids = components.add(np.where(np.isin(labels, shown), labels, -1), probability)
            classes = components.table().classes  # a single part: its numbers are those of the table
            for index, box in enumerate(ndimage.find_objects(ids), start=1):
                yield _region(int(classes[index]), box, ids[box] == index, probability[box], cropped=True)


def _region(number: int, box: tuple[slice, slice], region: Array, probability: Array, cropped: bool = False) -> Region:
    mean = float(probability[region].mean(dtype=np.float64))
    return Region(number, box[0].start, box[1].start, region if cropped else region[box], round(mean, 4))
