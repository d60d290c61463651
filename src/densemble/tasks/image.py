"""Image to image: images for images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import ImageMetrics, Metric
from densemble.tasks.losses.similarity import structural_dissimilarity
from densemble.tasks.losses.values import absolute, squared
from densemble.tasks.task import Task


@dataclass(frozen=True)
class ImageTask(Task):
    """A channel per channel of the wanted image, sigmoid. Targets: pixels ``(K, h, w)`` in [0, 1], NaN is invalid.

    Attributes:
        channels: K; 3 is RGB, 1 is grey.

    Raises:
        UsageError: no channels, or an unknown loss.
    """

    channels: int = 3
    loss_name: str = ""

    name = "image"
    planes = True
    target_kind = "pixels"
    primary = "psnr"
    losses = ("l1", "l2", "ssim")

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise UsageError(f"an image needs at least one channel, got {self.channels}; 3 is RGB")
        _ = self.mixture  # an unknown loss is refused here, not at the first step

    @property
    def out_channels(self) -> int:
        return self.channels

    def activation(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        wanted, valid = self.as_maps(target)
        prediction = torch.sigmoid(logits)
        match name:
            case "l1":
                return absolute(prediction, wanted, valid)
            case "l2":
                return squared(prediction, wanted, valid)
            case _:
                return structural_dissimilarity(prediction, wanted, valid)

    def metrics(self) -> Metric:
        return ImageMetrics()
