"""Layers that several heads use."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemble.nets.symbolic import int_min
from densemble.shapes import Size, is_fixed, is_size, size_of

WIDTH = 128
NARROWEST = 32


def resize(x: Tensor, size: Size) -> Tensor:
    """Resize features ``(B, C, H, W)`` bilinearly to (h, w) = ``size``; keep a tensor that has this size already."""
    return x if is_size(x, size) else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def average_regions(x: Tensor, regions: int) -> Tensor:
    """Average ``(B, C, H, W)`` over ``regions x regions`` regions, as :func:`torch.nn.functional.adaptive_avg_pool2d`.

    In a graph exported for images of any size, a matrix product computes the same: ONNX has no adaptive pooling.
    """
    size = size_of(x)
    if is_fixed(size):
        return F.adaptive_avg_pool2d(x, regions)
    rows, columns = (_region_shares(side, regions, x) for side in size)
    return rows @ x @ columns.T


def _region_shares(side: int, regions: int, x: Tensor) -> Tensor:
    """Share of each pixel in the mean of each region, ``(regions, side)``."""
    index, pixel = torch.arange(regions, device=x.device)[:, None], torch.arange(side, device=x.device)
    inside = (pixel >= index * side // regions) & (pixel < -(-(index + 1) * side // regions))
    shares = inside.to(x.dtype)
    return shares / shares.sum(1, keepdim=True)


def halving_widths(width: int, doublings: int) -> list[int]:
    """``doublings + 1`` numbers of channels: each is half of the one before, but at least ``NARROWEST``."""
    return [max(width >> number, NARROWEST) for number in range(doublings + 1)]


def resize_steps(widths: list[int]) -> nn.ModuleList:
    """One :class:`ResizeStep` from each width to the next."""
    return nn.ModuleList(ResizeStep(a, b) for a, b in pairwise(widths))


def run_steps(x: Tensor, steps: nn.ModuleList, logits: nn.Module, size: Size | None) -> Tensor:
    """Run doubling steps up to ``size``, then the convolution to logits."""
    for step in steps:
        x = step(x, size)
    result: Tensor = logits(x)
    return result


def normalized(convolution: nn.Module, channels: int) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def convolution3x3(in_channels: int, width: int) -> nn.Sequential:
    """3x3 convolution, batch normalization, ReLU: ``(B, C, H, W)`` -> ``(B, width, H, W)``."""
    return normalized(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), width)


class ResizeConvolution(nn.Conv2d):
    """Bilinear resize, then a 3x3 convolution: ``(B, C, H, W)`` -> ``(B, K, h, w)``.

    Args:
        in_channels: C, plus the channels of the second map if there is one.
        out_channels: K.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, size: Size, skip: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Resize ``x`` to ``size``, append the channels of ``skip`` (which has this size), and convolve."""
        resized = resize(x, size)
        return super().forward(resized if skip is None else torch.cat([resized, skip], 1))


class ResizeStep(nn.Sequential):
    """Resize, 3x3 convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(*normalized(ResizeConvolution(in_channels, out_channels), out_channels))

    def forward(self, x: Tensor, size: Size | None) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` -> ``(B, K, h, w)`` at twice H x W, limited to ``size`` if it is given."""
        convolution, normalization, activation = self
        height, width = size_of(x)
        doubled = (2 * height, 2 * width)
        if size is not None:
            doubled = (int_min(doubled[0], size[0]), int_min(doubled[1], size[1]))
        x = convolution(x, doubled)
        return activation(normalization(x))  # type: ignore[no-any-return]


class DoublingStep(nn.Sequential):
    """Layers that double height and width: ``(B, C, H, W)`` -> ``(B, K, 2H, 2W)``."""

    def forward(self, x: Tensor, size: Size | None) -> Tensor:  # type: ignore[override]
        """Run the layers; the step doubles whatever ``size`` is."""
        for layer in self:
            x = layer(x)
        return x
