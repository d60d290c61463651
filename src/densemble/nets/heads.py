"""Heads: a feature map goes in, logits of the wanted channels and size come out.

A head is called as ``head(features, size)``: features ``(B, C, H, W)``, size = the wanted (h, w); it returns
``(B, K, h, w)``. It doubles the map step by step towards the output it was built for and ends with one exact
resize, so it answers rightly to feature maps of any size.
"""

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from densemble.shapes import Size

WIDTH = 128
NARROWEST = 32


def _resize(x: Tensor, size: Size) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _normalized(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def _widths(doublings: int) -> list[int]:
    return [max(WIDTH >> step, NARROWEST) for step in range(doublings + 1)]


class UpsampleHead(nn.Module):
    """3x3 convolution, then (upsample x2, 3x3 convolution, BN, ReLU) per doubling, then a 1x1 convolution to logits."""

    def __init__(self, in_channels: int, out_channels: int, doublings: int) -> None:
        super().__init__()
        widths = _widths(doublings)
        self.first = _normalized(nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False), widths[0])
        self.steps = nn.ModuleList(
            _normalized(nn.Conv2d(a, b, 3, padding=1, bias=False), b) for a, b in pairwise(widths)
        )
        self.logits = nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, features: Tensor, size: Size) -> Tensor:
        """``(B, C, H, W)`` -> logits ``(B, K, h, w)`` with (h, w) = ``size``."""
        x = self.first(features)
        for step in self.steps:
            doubled = (min(x.shape[-2] * 2, size[0]), min(x.shape[-1] * 2, size[1]))
            x = step(_resize(x, doubled))
        return _resize(self.logits(x), size)


class DeconvHead(nn.Module):
    """3x3 convolution, then (4x4 transposed convolution of stride 2, BN, ReLU) per doubling, then 1x1 to logits."""

    def __init__(self, in_channels: int, out_channels: int, doublings: int) -> None:
        super().__init__()
        widths = _widths(doublings)
        self.first = _normalized(nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False), widths[0])
        self.steps = nn.Sequential(
            *(_normalized(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False), b) for a, b in pairwise(widths))
        )
        self.logits = nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, features: Tensor, size: Size) -> Tensor:
        """``(B, C, H, W)`` -> logits ``(B, K, h, w)`` with (h, w) = ``size``."""
        return _resize(self.logits(self.steps(self.first(features))), size)


HEADS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "upsample": UpsampleHead,
    "deconv": DeconvHead,
}
"""Head by name: called with (in_channels, out_channels, doublings)."""
