"""Head ``ppm``: pyramid pooling, then the upsampling steps of head ``upsample``."""

from functools import partial

import torch
from torch import Tensor, nn

from densemble.nets.heads.layers import ResizeStep, average_regions, normalized, resize
from densemble.nets.heads.step_head import StepHead
from densemble.shapes import size_of

BINS = (1, 2, 3, 6)


class PoolingPyramid(nn.Module):
    """Pyramid pooling module (Zhao et al. 2017, PSPNet): ``(B, C, H, W)`` -> ``(B, width, H, W)``.

    The pooled branches have no batch normalization: a map pooled to one pixel has one value per image and channel, so
    in a batch of one image its variance is 0.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels, width // len(BINS), 1), nn.ReLU()) for _ in BINS
        )
        self.joined = normalized(nn.Conv2d(in_channels + width, width, 3, padding=1, bias=False), width)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the map and its averages over 1, 4, 9 and 36 regions, and project them to ``width`` channels."""
        pooled = [branch(average_regions(x, bins)) for bins, branch in zip(BINS, self.branches, strict=True)]
        output: Tensor = self.joined(torch.cat([x, *(resize(part, size_of(x)) for part in pooled)], 1))
        return output


make_ppm = partial(StepHead, PoolingPyramid, ResizeStep)
"""Pyramid pooling, then a bilinear resize and a 3x3 convolution for each doubling of the size."""
