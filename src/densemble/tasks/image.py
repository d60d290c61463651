"""Image to image: predicts images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import ImageMetrics, Metric
from densemble.tasks.losses.similarity import structural_dissimilarity
from densemble.tasks.losses.values import absolute, squared
from densemble.tasks.task import Task

_LOSSES = {"l1": absolute, "l2": squared, "ssim": structural_dissimilarity}
"""Functions of the predicted image, the ideal image and its valid pixels, by name."""


@dataclass(frozen=True)
class ImageTask(Task):
    """One channel per channel of the target image, sigmoid. Targets: pixels ``(K, h, w)`` in [0, 1]; NaN is invalid.

    Attributes:
        channels: K; 3 for RGB, 1 for grey.

    Raises:
        UsageError: there are no channels, or a loss is unknown.
    """

    channels: int = 3
    loss_name: str = ""

    name = "image"
    meaning = "another image of the same scene"
    planes = True
    target_kind = "pixels"
    primary = "psnr"
    losses = tuple(_LOSSES)

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise UsageError(f"an image needs at least one channel, got {self.channels}; 3 is RGB")
        super().__post_init__()

    @property
    def out_channels(self) -> int:
        return self.channels

    def activation(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        ideal, valid = self.as_maps(target)
        return _LOSSES[name](torch.sigmoid(logits), ideal, valid)

    def metrics(self) -> Metric:
        return ImageMetrics()
