"""Heatmap: where points are (keypoints), or how many there are (density)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import DensityMetrics, KeypointMetrics, Metric
from densemble.shapes import Size
from densemble.tasks.class_names import require_classes
from densemble.tasks.losses.heat import count_error, penalty_reduced_focal
from densemble.tasks.task import TargetKind, Task

Mode = Literal["keypoints", "density"]

_TRAITS: dict[Mode, dict[str, Any]] = {
    "keypoints": {
        "target_kind": "heat", "distribution": "bernoulli", "primary": "pck", "losses": ("mse", "bce", "focal"),
    },
    "density": {
        "target_kind": "density", "primary": "count_mae", "higher_is_better": False, "losses": ("mse", "l1", "count"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class HeatmapTask(Task):
    """A channel per kind of point.

    ``keypoints``: sigmoid; targets are Gaussians of peak 1. ``density``: softplus; targets are densities whose sum is
    a count, and a softplus of 1 everywhere stands for a count of ``scale``, whatever the map's size.

    Attributes:
        classes: names of the channels.
        mode: what the maps mean.
        scale: of densities: a typical count per image and channel (the mean of the training targets).

    Raises:
        UsageError: no classes, an unknown mode or an unknown loss.
    """

    classes: tuple[str, ...] = ()
    mode: Mode = "keypoints"
    scale: float = 1.0
    loss_name: str = ""

    name = "heatmap"
    planes = True

    def __post_init__(self) -> None:
        require_classes(self.name, self.classes)
        if self.mode not in _TRAITS:
            raise UsageError(f"no heatmap is made of '{self.mode}'; there are: {', '.join(_TRAITS)}")
        for trait, value in _TRAITS[self.mode].items():
            object.__setattr__(self, trait, value)
        _ = self.mixture  # an unknown loss is refused here, not at the first step

    @classmethod
    def kind_of(cls, heatmap: str) -> TargetKind:
        kind: TargetKind = _TRAITS["density" if heatmap == "density" else "keypoints"]["target_kind"]
        return kind

    @classmethod
    def default_out_size(cls, input_size: Size) -> Size:
        return max(input_size[0] // 4, 1), max(input_size[1] // 4, 1)

    def activation(self, logits: Tensor) -> Tensor:
        if self.mode == "keypoints":
            return torch.sigmoid(logits)
        return F.softplus(logits) * self._typical_density(logits)

    def _typical_density(self, maps: Tensor) -> float:
        return self.scale / (maps.shape[-2] * maps.shape[-1])

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        if self.mode == "keypoints":
            return self._keypoint_term(name, logits, target.float())
        return self._density_term(name, logits, target.float())

    def _keypoint_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        match name:
            case "mse":
                return F.mse_loss(torch.sigmoid(logits), target)
            case "bce":
                return F.binary_cross_entropy_with_logits(logits, target)
            case _:
                return penalty_reduced_focal(logits, target)

    def _density_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        """In units of the typical density, or of the typical count."""
        prediction, wanted = F.softplus(logits), target / self._typical_density(target)
        match name:
            case "mse":
                return F.mse_loss(prediction, wanted)
            case "l1":
                return F.l1_loss(prediction, wanted)
            case _:
                return count_error(self.activation(logits), target, self.scale)

    def metrics(self) -> Metric:
        return KeypointMetrics() if self.mode == "keypoints" else DensityMetrics()
