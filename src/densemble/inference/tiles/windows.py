"""Windows: how an image of any size is cut into overlapping windows of one shape, and what each of them answers for.

Two axes that know nothing of each other: rows and columns. Without overlap every pixel is answered by one window, which
sees a halo around it. With overlap the answers are blended by a Gaussian of an eighth of the window (Isensee et al.
2021, nnU-Net; MONAI's sliding window), that is zero in the halo: what exact members say stays exact, for all the
windows that have a weight at a pixel say the same there.

Windows at the image's border end there: a network sees its own zero padding where the whole image would show it.
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
"""Of the Gaussian, as a share of the window."""
MOST_OVERLAP = 0.75


@dataclass(frozen=True)
class Box:
    """A part of the image in pixels; it may reach beyond the image, where edge values are continued."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Axis:
    """One axis cut into windows.

    Attributes:
        length: pixels of the image.
        padded: the same, continued to a multiple of the stride where there are several windows.
        window: pixels of every window.
        starts: where windows begin.
        answers: first pixel and end (exclusive) for which each window's weight is not 0.
        blended: answers overlap, else they meet.
    """

    length: int
    padded: int
    window: int
    starts: tuple[int, ...]
    answers: tuple[tuple[int, int], ...]
    blended: bool

    def done_before(self, number: int) -> int:
        """Up to which pixel nothing is missing any more before window ``number`` comes."""
        return self.padded if number == len(self.starts) else self.answers[number][0]

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        """Each window's weights over its answer, float32; those of all windows sum to 1 at every pixel."""
        if not self.blended:
            return tuple(torch.ones(end - first) for first, end in self.answers)
        total = torch.zeros(self.padded, dtype=torch.float64)
        bells = []
        for start, (first, end) in zip(self.starts, self.answers, strict=True):
            away = torch.arange(first, end, dtype=torch.float64) - (start + (self.window - 1) / 2)
            bells.append(torch.exp(-0.5 * (away / (SIGMA * self.window)) ** 2))
            total[first:end] += bells[-1]
        pairs = zip(bells, self.answers, strict=True)
        return tuple((bell / total[first:end]).float() for bell, (first, end) in pairs)


@dataclass(frozen=True)
class Windows:
    """An image cut into rows of windows.

    Attributes:
        rows: its vertical axis.
        columns: its horizontal axis.
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
        """Whether several windows answer for a pixel."""
        return self.rows.blended or self.columns.blended

    @property
    def work(self) -> float:
        """Pixels that are computed for each pixel of the image."""
        computed = len(self) * self.rows.window * self.columns.window
        return computed / (self.rows.length * self.columns.length)

    def boxes(self) -> Iterator[Box]:
        """What each window sees, row by row."""
        for top in self.rows.starts:
            for left in self.columns.starts:
                yield Box(top, left, self.rows.window, self.columns.window)

    def answers(self) -> Iterator[Box]:
        """What each window answers for, row by row."""
        for top, bottom in self.rows.answers:
            for left, right in self.columns.answers:
                yield Box(top, left, bottom - top, right - left)


def plan(
    size: Size, tile: int, halo: tuple[int, int, int, int] = (0, 0, 0, 0), stride: int = 1, overlap: float = 0.0
) -> Windows:
    """Cuts an image into windows.

    An axis that fits into one window is not cut and not padded: the network sees it as it would see the whole image.
    Another one is continued with its edge values to a multiple of the stride, and the map is that of the padded
    image: of other sizes a network resizes its maps in a way that no part of the image can repeat.

    Args:
        size: (H, W) of the image.
        tile: without overlap, pixels along each axis for which a window answers, the halo around it not counted; fewer
            where as many windows can do with less. With overlap, pixels of the window, the halo in it. Rounded up to
            a multiple of the stride.
        halo: (top, bottom, left, right) pixels of a window that get no weight, unless they lie at the image's border.
        stride: windows begin and end at multiples of it.
        overlap: share of a window that the next one shows again, 0 to 0.75; more where the halo asks for it.

    Raises:
        UsageError: an overlap out of range, or a tile that is all halo.
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
    # Whole windows where tiles cover the image without a rest: images of many sizes then share one shape, for which
    # a network is compiled once. Else as little as so many windows can do with.
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
            f"tile = {window} is all halo, which is {before} and {after} pixels; choose at least "
            f"{2 * (before + after + stride)}"
        )
    padded = _up(length, stride)
    step = max(min(int(window * (1 - overlap)), window - before - after) // stride, 1) * stride
    count = math.ceil((padded - window) / step) + 1
    starts = _spread(count, padded - window, stride)
    answers = [
        (start + before if number else 0, start + window - after if number < count - 1 else padded)
        for number, start in enumerate(starts)
    ]
    return Axis(length, padded, window, starts, tuple(answers), blended=True)


def _one_window(length: int) -> Axis:
    return Axis(length, length, length, (0,), ((0, length),), blended=False)


def _spread(count: int, last: int, stride: int) -> tuple[int, ...]:
    """``count`` starts from 0 to ``last``, evenly, at multiples of the stride."""
    return tuple(number * last // ((count - 1) * stride) * stride for number in range(count))
