"""The built-in backbone ``resdeconv``: residual blocks, designed for the head ``deconv``.

It is small enough to be trained from scratch on a few hundred images. It differs from the classifiers and makes other
errors, which is useful in an ensemble.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, basic block): ``(B, C, H, W) -> (B, C', H/s, W/s)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class ResDeconv(nn.Module):
    """Residual network: ``(B, 3, H, W)`` -> ``(B, 256, H/32, W/32)``, one halving per stage."""

    default_head = "deconv"

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 192, 256)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.stages = nn.Sequential(
            *(nn.Sequential(ResidualBlock(a, b, stride=2), ResidualBlock(b, b, stride=1)) for a, b in pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(x))
        return features
