"""Components: connected regions of equal class, found in rows that come from the top."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from densemble.shapes import Array


@dataclass(frozen=True)
class ComponentTable:
    """All components of a plane; row 0 stands for no class.

    Attributes:
        numbers: component of each number that :meth:`Components.add` gave, int32 ``(N,)``; 0 remains 0.
        classes: class of each component, int32 ``(C + 1,)``; row 0 holds -1.
        pixels: number of pixels, int64 ``(C + 1,)``.
        probability: mean probability, float64 ``(C + 1,)``.
    """

    numbers: Array
    classes: Array
    pixels: Array
    probability: Array


class Components:
    """Numbers the connected components (4 neighbours) of a plane; memory holds a few numbers for each of them."""

    def __init__(self) -> None:
        self._classes: list[Array] = [np.array([-1], np.int32)]  # of each number, in parts
        self._pixels: list[Array] = [np.zeros(1, np.int64)]
        self._probability: list[Array] = [np.zeros(1)]
        self._count = 1
        self._joined: list[Array] = []  # pairs of numbers that are one component, (n, 2)
        self._last: tuple[Array, Array] | None = None  # last row: numbers, classes

    def add(self, labels: Array, probability: Array) -> Array:
        """Number the components in the next rows.

        Args:
            labels: class of each pixel, int ``(n, W)``; -1: none.
            probability: of the class, ``(n, W)``.

        Returns:
            int32 ``(n, W)``, 0 for no class. A component that continues a row above has other numbers there.
        """
        ids = np.zeros(labels.shape, np.int32)
        classes: list[int] = []
        for label in (int(label) for label in np.unique(labels) if label >= 0):
            region = labels == label
            within, count = ndimage.label(region)
            ids[region] = within[region] + (self._count + len(classes) - 1)
            classes += [label] * count
        first = self._count - 1
        local = np.where(ids > 0, ids - first, 0).ravel()
        self._classes.append(np.array(classes, np.int32))
        self._pixels.append(np.bincount(local, minlength=len(classes) + 1)[1:])
        self._probability.append(np.bincount(local, probability.ravel().astype(np.float64), len(classes) + 1)[1:])
        self._count += len(classes)
        if self._last is not None:
            above_ids, above_classes = self._last
            same = (above_classes == labels[0]) & (labels[0] >= 0)
            self._joined.append(np.unique(np.stack([above_ids[same], ids[0][same]], axis=1), axis=0))
        self._last = ids[-1].copy(), labels[-1].copy()
        return ids

    def table(self) -> ComponentTable:
        """The components of all rows so far, in the order in which they begin."""
        classes, pixels, sums = (np.concatenate(part) for part in (self._classes, self._pixels, self._probability))
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self._joined])
        graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(self._count, self._count))
        _, group = connected_components(graph, directed=False)
        _, first, group = np.unique(group, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))  # number 0 is alone and comes first
        numbers = rank[group].astype(np.int32)
        merged = np.bincount(numbers, pixels).astype(np.int64)
        probability = np.bincount(numbers, sums) / np.maximum(merged, 1)
        return ComponentTable(numbers, classes[np.sort(first)], merged, probability)
