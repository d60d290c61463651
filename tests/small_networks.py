"""Small classifiers with 8 to 32 channels."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from densemble.nets.dense import DenseModel


class SmallClassifier(nn.Module):
    """Four strided convolutions, each with batch normalization."""

    def __init__(self, widths: tuple[int, ...] = (3, 8, 16, 16, 32)) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(stage(*pair) for pair in pairwise(widths)))
        self.classifier = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.stages(x).mean((2, 3)))
        return scores


def other_classifier() -> SmallClassifier:
    """Classifier with other channel counts."""
    return SmallClassifier((3, 12, 12, 24, 24))


SMALL, OTHER = "small_networks:SmallClassifier", "small_networks:other_classifier"


def stage(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def small_dense(seed: int = 0, **options: Any) -> DenseModel:
    """Dense model of the small classifier. Defaults: 48x64 images, 12x16 maps."""
    torch.manual_seed(seed)
    arguments = {"out_size": (12, 16), "input_size": (48, 64), "head": "upsample", "weights": None, **options}
    return DenseModel(SmallClassifier(), **arguments)
