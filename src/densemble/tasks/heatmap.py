"""Heatmap: where points are (keypoints), or how many there are (density)."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import DensityMetrics, KeypointMetrics, Metric
from densemble.tasks.base import Distribution, TargetKind, Task, without_defaults
from densemble.tasks.classes import require_classes
from densemble.tasks.losses.heat import count_error, penalty_reduced_focal

Mode = Literal["keypoints", "density"]


class _Traits(NamedTuple):
    target_kind: TargetKind
    distribution: Distribution
    primary: str
    higher_is_better: bool
    losses: tuple[str, ...]


_MODES: dict[Mode, _Traits] = {
    "keypoints": _Traits("heat", "bernoulli", "pck", True, ("mse", "bce", "focal")),
    "density": _Traits("density", "none", "count_mae", False, ("mse", "l1", "count")),
}


@dataclass(frozen=True)
class HeatmapTask(Task):
    """A channel per kind of point.

    ``keypoints``: sigmoid; targets are Gaussians of peak 1. ``density``: softplus; targets are densities whose sum is
    a count, and a softplus of 1 everywhere stands for a count of ``scale``, whatever the map's size.

    Attributes:
        classes: names of the channels.
        mode: what the maps mean.
        scale: of densities: a typical count per picture and channel (the mean of the training targets).

    Raises:
        UsageError: no classes, an unknown mode or an unknown loss.
    """

    classes: tuple[str, ...]
    mode: Mode = "keypoints"
    scale: float = 1.0
    loss_name: str = ""

    name = "heatmap"
    planes = True
    fill = 0.0
    default_loss = "mse"

    def __post_init__(self) -> None:
        require_classes(self.name, self.classes)
        if self.mode not in _MODES:
            raise UsageError(f"no heatmap is made of '{self.mode}'; there are: {', '.join(_MODES)}")
        _ = self.mixture  # an unknown loss is refused here, not at the first step

    @property
    def out_channels(self) -> int:
        return len(self.classes)

    @property
    def target_kind(self) -> TargetKind:
        return _MODES[self.mode].target_kind

    @property
    def distribution(self) -> Distribution:
        return _MODES[self.mode].distribution

    @property
    def primary(self) -> str:
        return _MODES[self.mode].primary

    @property
    def higher_is_better(self) -> bool:
        return _MODES[self.mode].higher_is_better

    @property
    def losses(self) -> tuple[str, ...]:
        return _MODES[self.mode].losses

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

    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        return target.float(), torch.ones_like(target[:1], dtype=torch.bool)

    def metrics(self) -> Metric:
        return KeypointMetrics() if self.mode == "keypoints" else DensityMetrics()

    def describe(self) -> dict[str, Any]:
        kept = {"classes": list(self.classes), "mode": self.mode, "scale": self.scale}
        return {"name": self.name, **kept, **without_defaults({"loss_name": self.loss_name})}


def make_heatmap(values: dict[str, Any]) -> Task:
    """From the plain values of ``describe``."""
    return HeatmapTask(
        tuple(values.get("classes") or ()),
        cast(Mode, values.get("mode", "keypoints")),
        float(values.get("scale", 1.0)),
        values.get("loss_name", ""),
    )
