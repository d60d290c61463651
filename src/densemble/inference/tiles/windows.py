"""Windows: division of an image of any size into overlapping windows of one shape, with the output box of each.

Rows and columns are divided independently. Without overlap, every pixel is in the output box of one window, which also
sees a halo around it. With overlap, outputs are blended by a Gaussian with a sigma of an eighth of the window (Isensee
et al. 2021, nnU-Net; MONAI's sliding window). Its weight is zero in the halo, so that the maps of exact members stay
exact: all windows with a weight at a pixel have the same output there.

Windows at the border of the image end there, so that a network applies its zero padding as for the whole image.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from densemble.errors import UsageError
from densemble.shapes import Size

SIGMA = 1 / 8
"""Sigma of the Gaussian, as a share of the window."""
MOST_OVERLAP = 0.75


@dataclass(frozen=True)
class Box:
    """A part of the image in pixels; it may extend beyond the image, where edge values are repeated."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Axis:
    """One axis divided into windows.

    Attributes:
        length: length of the image in pixels.
        padded: length padded to a multiple of the stride if there are several windows.
        window: length of every window.
        starts: first pixel of each window.
        outputs: first pixel and end (exclusive) of the range in which each window has a weight above 0.
        blended: output ranges overlap; else they are adjacent.
    """

    length: int
    padded: int
    window: int
    starts: tuple[int, ...]
    outputs: tuple[tuple[int, int], ...]
    blended: bool

    def complete_before(self, index: int) -> int:
        """Number of leading pixels that are complete before window ``index`` is added."""
        return self.padded if index == len(self.starts) else self.outputs[index][0]

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        """Weights of each window over its output range, float32; they sum to 1 over all windows at every pixel."""
        if not self.blended:
            return tuple(torch.ones(end - first) for first, end in self.outputs)
        total = torch.zeros(self.padded, dtype=torch.float64)
        gaussians = []
        for start, (first, end) in zip(self.starts, self.outputs, strict=True):
            distance = torch.arange(first, end, dtype=torch.float64) - (start + (self.window - 1) / 2)
            gaussians.append(torch.exp(-0.5 * (distance / (SIGMA * self.window)) ** 2))
            total[first:end] += gaussians[-1]
        pairs = zip(gaussians, self.outputs, strict=True)
        return tuple((gaussian / total[first:end]).float() for gaussian, (first, end) in pairs)


@dataclass(frozen=True)
class Windows:
    """An image divided into rows of windows.

    Attributes:
        rows: vertical axis.
        columns: horizontal axis.
    """

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def size(self) -> Size:
        """(H, W) of the image."""
        return self.rows.length, self.columns.length

    @property
    def blended(self) -> bool:
        """Whether output boxes overlap."""
        return self.rows.blended or self.columns.blended

    @property
    def work(self) -> float:
        """Number of computed pixels per pixel of the image."""
        computed = len(self) * self.rows.window * self.columns.window
        return computed / (self.rows.length * self.columns.length)

    def input_boxes(self) -> Iterator[Box]:
        """The part of the image that each window sees, row by row."""
        for top in self.rows.starts:
            for left in self.columns.starts:
                yield Box(top, left, self.rows.window, self.columns.window)

    def output_boxes(self) -> Iterator[Box]:
        """The part of the map to which each window contributes, row by row."""
        for top, bottom in self.rows.outputs:
            for left, right in self.columns.outputs:
                yield Box(top, left, bottom - top, right - left)


def plan(
    size: Size, tile: int, halo: tuple[int, int, int, int] = (0, 0, 0, 0), stride: int = 1, overlap: float = 0.0
) -> Windows:
    """Divide an image into windows.

    An axis that fits into one window is neither divided nor padded: the network sees it as in the whole image. A longer
    axis is padded with its edge values to a multiple of the stride, and the map is that of the padded image: at other
    sizes, a network resizes its maps in a way that parts of the image cannot reproduce.

    Args:
        size: (H, W) of the image.
        tile: without overlap, length of an output range along each axis, without the halo around it; less if the same
            number of windows can be smaller. With overlap, length of the window including the halo. Rounded up to a
            multiple of the stride.
        halo: (top, bottom, left, right) pixels of a window that get no weight, except at the border of the image.
        stride: windows begin and end at multiples of it.
        overlap: share of a window that the next one sees again, 0 to 0.75; more if the halo requires it.

    Raises:
        UsageError: an overlap out of range, or a tile that consists only of halo.
    """
    if not 0 <= overlap <= MOST_OVERLAP:
        raise UsageError(f"overlap = {overlap} must be a share from 0 to {MOST_OVERLAP}")
    if tile < 1:
        raise UsageError(f"tile = {tile} must be at least one pixel")
    top, bottom, left, right = (_up(side, stride) for side in halo)
    tile = _up(tile, stride)
    if overlap:
        rows = _blended_axis(size[0], tile, (top, bottom), stride, overlap)
        return Windows(rows, _blended_axis(size[1], tile, (left, right), stride, overlap))
    return Windows(_exact_axis(size[0], tile, (top, bottom), stride), _exact_axis(size[1], tile, (left, right), stride))


def _up(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _exact_axis(length: int, tile: int, halo: tuple[int, int], stride: int) -> Axis:
    around = sum(halo)
    window, padded = tile + around, _up(length, stride)
    if length <= window:
        return _one_window(length)
    count = math.ceil((padded - around) / tile)
    # Windows keep their full length if the tiles cover the image exactly: images of many sizes then share one shape,
    # for which a network is compiled once. Otherwise they have the smallest length for this number of windows.
    if count * tile > padded:
        window = _up(math.ceil((padded + (count - 1) * around) / count), stride)
    starts = _spread(count, padded - window, stride)
    before, after = halo
    seams = [(start + before + previous + window - after) // 2 for previous, start in pairwise(starts)]
    edges = (0, *seams, padded)
    return Axis(length, padded, window, starts, tuple(pairwise(edges)), blended=False)


def _blended_axis(length: int, window: int, halo: tuple[int, int], stride: int, overlap: float) -> Axis:
    if length <= window:
        return _one_window(length)
    before, after = halo
    if window - before - after < stride:
        raise UsageError(
            f"tile = {window} is all halo ({before} and {after} pixels); use at least {2 * (before + after + stride)}"
        )
    padded = _up(length, stride)
    step = max(min(int(window * (1 - overlap)), window - before - after) // stride, 1) * stride
    count = math.ceil((padded - window) / step) + 1
    starts = _spread(count, padded - window, stride)
    outputs = [
        (start + before if index else 0, start + window - after if index < count - 1 else padded)
        for index, start in enumerate(starts)
    ]
    return Axis(length, padded, window, starts, tuple(outputs), blended=True)


def _one_window(length: int) -> Axis:
    return Axis(length, length, length, (0,), ((0, length),), blended=False)


def _spread(count: int, last: int, stride: int) -> tuple[int, ...]:
    """``count`` starts from 0 to ``last``, evenly, at multiples of the stride."""
    return tuple(index * last // ((count - 1) * stride) * stride for index in range(count))
