"""Halo: how far a network looks, measured, so that a large image can be cut into tiles that give the very same map.

A window of an image has zeros where the image went on. What that changes lies within the network's reach of the cut:
the halo. Where the window begins at a multiple of the stride, after which the network repeats itself, all that lies
further in is the map of the whole image, up to rounding.

The reach is measured on the network itself. All rows of an image beyond a line are NaN, and NaN in a sum, a maximum or
a product gives NaN, whatever the weights are: the rows of logits that are NaN are those that can see beyond the line.
It is at least what Araujo et al. (Distill 2019) compute for the backbone, see :mod:`densemble.nets.receptive_field`:
the head comes on top. The result is then tried: windows of a random image against the whole.

A network that looks at the whole image at once (global pooling, squeeze-and-excitation, attention, group
normalization) has no halo, nor has one whose maps are not an exact fraction of the image (unpadded convolutions): they
are resized by another factor in every size of image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.nets.dense import DenseModel
from densemble.nets.heads.layers import resize
from densemble.nets.modes import eval_mode

REFERENCE_TILE = 1024
MOST_WORK = 1.45
"""Pixels that are computed for each one that is kept, at the reference tile: beyond, tiles are blended instead."""
LONGEST_STRIDE = 128
_NARROW = 32  # width of the images that rows are tried on: enough, and an eighth of the work of square ones


@dataclass(frozen=True)
class Halo:
    """What a window has to see around the tile that it answers for.

    Attributes:
        stride: windows begin and end at multiples of it.
        pixels: (top, bottom, left, right), multiples of the stride.
    """

    stride: int
    pixels: tuple[int, int, int, int]

    def work(self, tile: int) -> float:
        """Pixels computed for each one that is kept, for square tiles of so many pixels that answer."""
        top, bottom, left, right = self.pixels
        return (tile + top + bottom) * (tile + left + right) / tile**2

    def symmetric(self) -> "Halo":
        """The same on all four sides, the widest: it does for every turn and reflection."""
        widest = max(self.pixels)
        return Halo(self.stride, (widest, widest, widest, widest))


@dataclass(frozen=True)
class Reach:
    """Whether tiles of a network are exact.

    Attributes:
        halo: with which they are; ``None``: they are not.
        why: they are not, in words; empty where they are.
    """

    halo: Halo | None
    why: str = ""


@torch.no_grad()
def measure_reach(model: DenseModel) -> Reach:
    """Whether tiles of a model give the map of the whole image, and with which halo; else why not.

    They are exact where the halo costs at most ``MOST_WORK`` times the work at tiles of ``REFERENCE_TILE``.

    Args:
        model: at the image's own size; is left as it is.
    """
    spec = model.spec
    if spec.input_size is not None or spec.rule.fixed is not None:
        return Reach(None, "it sees the whole image, resized")
    if spec.out_size is not None:
        return Reach(None, "its map has one size for images of every size")
    with eval_mode(model):
        sides = [*_reach(model, vertical=True), *_reach(model, vertical=False)]
        if None in sides:
            return Reach(None, f"it sees more than {_line(spec.multiple)} pixels far, or the whole image")
        for stride in _strides(spec.multiple):
            top, bottom, left, right = (-(-(side or 0) // stride) * stride for side in sides)
            halo = Halo(stride, (top, bottom, left, right))
            if _holds(model, stride, (top, bottom), vertical=True) and _holds(model, stride, (left, right), False):
                work = halo.work(REFERENCE_TILE)
                costs = f"a halo of {max(halo.pixels)} pixels costs {work:.2f} times the work, more than {MOST_WORK}"
                return Reach(halo) if work <= MOST_WORK else Reach(None, costs)
    return Reach(None, "its maps are no exact fraction of the image: how they are resized depends on its size")


def _logits(model: DenseModel, images: Tensor, vertical: bool) -> Tensor:
    """Logits ``(1, K, length, width)`` of images of that shape, turned so that the network sees length as height."""
    seen = images if vertical else images.transpose(-1, -2).contiguous()
    size = (int(seen.shape[-2]), int(seen.shape[-1]))
    # Not model(...): a member on another backend passes NaN on as that backend likes.
    logits = resize(DenseModel.grid(model, (seen - model.mean) / model.std, size), size)
    return logits if vertical else logits.transpose(-1, -2)


def _line(multiple: int) -> int:
    return math.lcm(LONGEST_STRIDE, multiple)


def _strides(multiple: int) -> list[int]:
    """Those that are tried, the shortest first."""
    return [multiple * 2**power for power in range(8) if _line(multiple) % (multiple * 2**power) == 0]


def _random(model: DenseModel, length: int) -> Tensor:
    """An image ``(1, C, length, width)``, the same at every call."""
    _, width = model.spec.rule.nearest((_NARROW, _NARROW))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, model.spec.in_channels, length, width, generator=generator).to(model.mean)


def _reach(model: DenseModel, vertical: bool) -> tuple[int | None, int | None]:
    """How many pixels the network sees back and ahead; ``None``: as far as was looked."""
    line = _line(model.spec.multiple)
    least = max(2 * line, model.spec.rule.nearest((1, 1))[0])
    images = _random(model, -(-least // line) * line)
    ahead, back = images.clone(), images.clone()
    ahead[:, :, line:] = float("nan")
    back[:, :, :line] = float("nan")
    touched_ahead = _logits(model, ahead, vertical).isnan().any(dim=3).any(dim=1)[0].nonzero()
    touched_back = _logits(model, back, vertical).isnan().any(dim=3).any(dim=1)[0].nonzero()
    first, last = int(touched_ahead.min()), int(touched_back.max())
    return (
        None if last == images.shape[2] - 1 else last + 1 - line,
        None if first == 0 else line - first,
    )


def _holds(model: DenseModel, stride: int, halo: tuple[int, int], vertical: bool) -> bool:
    """Whether windows at the start, the end and odd multiples of the stride give what the whole image gives."""
    before, after = halo
    least = model.spec.rule.nearest((1, 1))[0]
    window = -(-max(before + after + 3 * stride, least) // stride) * stride
    margin = (-(-max(64, before, after) // stride) | 1) * stride
    images = _random(model, 2 * margin + window)
    length = images.shape[2]
    whole = _logits(model, images, vertical)
    spread, largest = float(whole.std()), float(whole.abs().max())
    if not spread > 1e-5 * largest:
        return False  # a flat map: any stride would seem to hold
    for start in (0, margin, length - window):
        first = 0 if start == 0 else before
        end = window if start + window == length else window - after
        part = _logits(model, images[:, :, start : start + window].contiguous(), vertical)
        difference = float((part - whole[:, :, start : start + window])[:, :, first:end].abs().max())
        if not difference <= 1e-4 * spread + 2e-6 * largest:
            return False
    return True
