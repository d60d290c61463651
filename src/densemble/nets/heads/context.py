"""Context: layers through which every place of a map learns about its surroundings at several scales.

Neither normalizes its pooled branches by batch: a pooled map has one value per image and channel, of which a batch
of one has no variance.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemble.nets.heads.layers import normalized, resize

RATES = (6, 12, 18)
BINS = (1, 2, 3, 6)


class SpatialPyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, DeepLabV3): ``(B, C, H, W)`` -> ``(B, width, H, W)``."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        dilated = [nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate, bias=False) for rate in RATES]
        self.branches = nn.ModuleList(
            normalized(layer, width) for layer in (nn.Conv2d(in_channels, width, 1, bias=False), *dilated)
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, width, 1), nn.ReLU())
        self.joined = normalized(nn.Conv2d((len(RATES) + 2) * width, width, 1, bias=False), width)

    def forward(self, x: Tensor) -> Tensor:
        """Five views of the map, joined."""
        pooled = self.pooled(x).expand(-1, -1, *x.shape[-2:])
        joined: Tensor = self.joined(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))
        return joined


class PoolingPyramid(nn.Module):
    """Pyramid pooling module (Zhao et al. 2017, PSPNet): ``(B, C, H, W)`` -> ``(B, width, H, W)``."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels, width // len(BINS), 1), nn.ReLU()) for _ in BINS
        )
        self.joined = normalized(nn.Conv2d(in_channels + width, width, 3, padding=1, bias=False), width)

    def forward(self, x: Tensor) -> Tensor:
        """The map and its averages over 1, 4, 9 and 36 fields, joined."""
        pooled = [branch(F.adaptive_avg_pool2d(x, bins)) for bins, branch in zip(BINS, self.branches, strict=True)]
        size = (x.shape[-2], x.shape[-1])
        joined: Tensor = self.joined(torch.cat([x, *(resize(part, size) for part in pooled)], 1))
        return joined
