"""Head ``aspp``: atrous spatial pyramid pooling, then the upsampling steps of head ``upsample``."""

from functools import partial

import torch
from torch import Tensor, nn

from densemble.nets.heads.layers import ResizeStep, normalized
from densemble.nets.heads.step_head import StepHead
from densemble.shapes import size_of

RATES = (6, 12, 18)


class SpatialPyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, DeepLabV3): ``(B, C, H, W)`` -> ``(B, width, H, W)``.

    The pooled branch has no batch normalization: a pooled map has one value per image and channel, and a batch of one
    has no variance.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        dilated = [nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate, bias=False) for rate in RATES]
        self.branches = nn.ModuleList(
            normalized(layer, width) for layer in (nn.Conv2d(in_channels, width, 1, bias=False), *dilated)
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, width, 1), nn.ReLU())
        self.joined = normalized(nn.Conv2d((len(RATES) + 2) * width, width, 1, bias=False), width)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the five branches and project them to ``width`` channels."""
        pooled = self.pooled(x).expand(-1, -1, *size_of(x))
        output: Tensor = self.joined(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))
        return output


make_aspp = partial(StepHead, SpatialPyramid, ResizeStep)
"""Atrous spatial pyramid pooling, then a bilinear resize and a 3x3 convolution per doubling."""
