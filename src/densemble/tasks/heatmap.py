"""Heatmap: positions of points (keypoints), or their number (density)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.errors import UsageError, unknown_name
from densemble.metrics import DensityMetrics, KeypointMetrics, Metric
from densemble.shapes import Size
from densemble.tasks.class_settings import require_classes
from densemble.tasks.losses.heat import count_error, penalty_reduced_focal
from densemble.tasks.task import TargetKind, Task

Mode = Literal["keypoints", "density"]

_TRAITS: dict[Mode, dict[str, Any]] = {
    "keypoints": {
        "target_kind": "heat", "distribution": "bernoulli", "primary": "pck", "losses": ("mse", "bce", "focal"),
        "pipeline_tag": "keypoint-detection", "meaning": "where the points of each kind are",
    },
    "density": {
        "target_kind": "density", "primary": "count_mae", "higher_is_better": False, "losses": ("mse", "l1", "count"),
        "meaning": "where the objects of each kind are, and how many",
    },
}  # fmt: skip


@dataclass(frozen=True)
class HeatmapTask(Task):
    """One channel per class of points.

    ``keypoints``: sigmoid; targets are Gaussians with a peak of 1. ``density``: softplus; targets are densities whose
    sum is a count. A softplus output of 1 everywhere corresponds to a count of ``scale``, whatever the size of the map.

    Attributes:
        classes: names of the channels.
        mode: meaning of the maps.
        scale: for densities, a typical count per image and channel (the mean of the training targets).

    Raises:
        UsageError: there are no classes, or the mode or a loss is unknown.
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
            raise UsageError(unknown_name("mode of heatmap", self.mode, _TRAITS))
        for trait, value in _TRAITS[self.mode].items():
            object.__setattr__(self, trait, value)
        super().__post_init__()

    @classmethod
    def target_kind_for(cls, heatmap: str) -> TargetKind:
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
        """Compute the loss in units of the typical density, or of the typical count."""
        prediction, scaled_target = F.softplus(logits), target / self._typical_density(target)
        match name:
            case "mse":
                return F.mse_loss(prediction, scaled_target)
            case "l1":
                return F.l1_loss(prediction, scaled_target)
            case _:
                return count_error(self.activation(logits), target, self.scale)

    def metrics(self) -> Metric:
        return KeypointMetrics() if self.mode == "keypoints" else DensityMetrics()
