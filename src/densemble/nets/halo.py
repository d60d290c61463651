"""Halo: the context that a tile needs so that tiles of a large image give the same map as the whole image.

Convolutions pad a window with zeros where the image continues. This changes the map only near the border of the
window, within the halo. If the window starts at a multiple of the stride, the map further inside equals that of the
whole image, up to rounding.

The halo is measured on the network. All image rows beyond a line are set to NaN. A sum, maximum or product with NaN is
NaN, whatever the weights are, so the rows of logits that depend on pixels beyond the line are NaN. The halo is at least
the receptive field of the backbone (Araujo et al., Distill 2019; see :mod:`densemble.nets.receptive_field`), because
it includes the head. The result is verified: windows of a random image are compared with the whole image.

A network whose logits depend on the whole image (global pooling, squeeze-and-excitation, attention, group
normalization) has no halo. Neither has a network whose maps are not an exact fraction of the image (unpadded
convolutions): the factor by which its maps are resized depends on the image size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.nets.dense import DenseModel
from densemble.nets.heads.layers import resize
from densemble.nets.modes import eval_mode
from densemble.shapes import size_of

REFERENCE_TILE = 1024
MOST_WORK = 1.45
"""Largest ratio of computed to kept pixels at the reference tile; above it, tiles are blended instead."""
LONGEST_STRIDE = 128
_NARROW = 32  # width of the probe images: an eighth of the work of square images


@dataclass(frozen=True)
class Halo:
    """Context around a tile.

    Attributes:
        stride: windows start and end at multiples of it.
        pixels: (top, bottom, left, right), multiples of the stride.
    """

    stride: int
    pixels: tuple[int, int, int, int]

    def work(self, tile: int) -> float:
        """Ratio of computed to kept pixels for square tiles of side ``tile``."""
        top, bottom, left, right = self.pixels
        return (tile + top + bottom) * (tile + left + right) / tile**2

    def symmetric(self) -> "Halo":
        """A halo with the largest width on all four sides, valid for every rotation and reflection."""
        widest = max(self.pixels)
        return Halo(self.stride, (widest, widest, widest, widest))


@dataclass(frozen=True)
class Reach:
    """Whether tiles of a network are exact.

    Attributes:
        halo: halo of exact tiles; ``None``: tiles are not exact.
        why: reason why tiles are not exact; empty if they are.
    """

    halo: Halo | None
    why: str = ""


@torch.no_grad()
def measure_reach(model: DenseModel) -> Reach:
    """Measure the halo with which tiles of a model give the map of the whole image, or the reason why there is none.

    Tiles count as exact if the halo costs at most ``MOST_WORK`` times the work at tiles of ``REFERENCE_TILE``.

    Args:
        model: a model whose output has the size of the image; not changed.
    """
    spec = model.spec
    if spec.input_size is not None or spec.rule.fixed is not None:
        return Reach(None, "it resizes the whole image")
    if spec.out_size is not None:
        return Reach(None, "its map has the same size for images of every size")
    line = _line(spec.multiple)
    with eval_mode(model):
        sides = [*_reach(model, vertical=True), *_reach(model, vertical=False)]
        if None in sides:
            return Reach(None, f"its map depends on pixels more than {line} pixels away, or on the whole image")
        for stride in (spec.multiple * 2**power for power in range(8)):
            if line % stride:
                continue
            top, bottom, left, right = (-(-(side or 0) // stride) * stride for side in sides)
            halo = Halo(stride, (top, bottom, left, right))
            if _holds(model, stride, (top, bottom), vertical=True) and _holds(model, stride, (left, right), False):
                work = halo.work(REFERENCE_TILE)
                costs = f"a halo of {max(halo.pixels)} pixels costs {work:.2f} times the work, more than {MOST_WORK}"
                return Reach(halo) if work <= MOST_WORK else Reach(None, costs)
    return Reach(None, "its maps are not an exact fraction of the image, so how they are resized depends on the size")


def _logits(model: DenseModel, images: Tensor, vertical: bool) -> Tensor:
    """Logits ``(1, K, length, width)`` of images ``(1, C, length, width)``; length is the height if vertical."""
    network_images = images if vertical else images.transpose(-1, -2).contiguous()
    size = size_of(network_images)
    # Not model(...): other backends may not propagate NaN.
    logits = resize(DenseModel.grid(model, (network_images - model.mean) / model.std, size), size)
    return logits if vertical else logits.transpose(-1, -2)


def _line(multiple: int) -> int:
    return math.lcm(LONGEST_STRIDE, multiple)


def _random(model: DenseModel, length: int) -> Tensor:
    """A random image ``(1, C, length, width)``, the same at every call."""
    _, width = model.spec.rule.nearest((_NARROW, _NARROW))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, model.spec.in_channels, length, width, generator=generator).to(model.mean)


def _reach(model: DenseModel, vertical: bool) -> tuple[int | None, int | None]:
    """Pixels (before, after) a position that its logits depend on; ``None``: more than the probe image shows."""
    line = _line(model.spec.multiple)
    smallest = max(2 * line, model.spec.rule.nearest((1, 1))[0])
    images = _random(model, -(-smallest // line) * line)
    nan_after, nan_before = images.clone(), images.clone()
    nan_after[:, :, line:] = float("nan")
    nan_before[:, :, :line] = float("nan")
    rows_after, rows_before = (
        _logits(model, probe, vertical).isnan().any(dim=3).any(dim=1)[0].nonzero() for probe in (nan_after, nan_before)
    )
    first, last = int(rows_after.min()), int(rows_before.max())
    return (
        None if last == images.shape[2] - 1 else last + 1 - line,
        None if first == 0 else line - first,
    )


def _holds(model: DenseModel, stride: int, halo: tuple[int, int], vertical: bool) -> bool:
    """Whether windows at the start, the end and an odd multiple of the stride give the logits of the whole image."""
    before, after = halo
    smallest = model.spec.rule.nearest((1, 1))[0]
    window = -(-max(before + after + 3 * stride, smallest) // stride) * stride
    margin = (-(-max(64, before, after) // stride) | 1) * stride
    images = _random(model, 2 * margin + window)
    length = images.shape[2]
    whole = _logits(model, images, vertical)
    spread, largest = float(whole.std()), float(whole.abs().max())
    if not spread > 1e-5 * largest:
        return False  # a constant map would agree at any stride
    for start in (0, margin, length - window):
        first = 0 if start == 0 else before
        end = window if start + window == length else window - after
        part = _logits(model, images[:, :, start : start + window].contiguous(), vertical)
        difference = float((part - whole[:, :, start : start + window])[:, :, first:end].abs().max())
        if not difference <= 1e-4 * spread + 2e-6 * largest:
            return False
    return True
