"""Regression and depth: one value per pixel."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import Metric, RegressionMetrics
from densemble.tasks.losses.values import absolute, reverse_huber, scale_invariant_log, squared
from densemble.tasks.task import Task

_LOSSES = {"l1": absolute, "l2": squared, "silog": scale_invariant_log, "berhu": reverse_huber}
"""Functions of the prediction, the target and its valid pixels, in units of the task's scale, by name."""


@dataclass(frozen=True)
class RegressionTask(Task):
    """One channel. Targets: float; NaN and values <= ``invalid_below`` are invalid.

    If only positive values are valid, a softplus keeps the output positive.

    Attributes:
        scale: unit of the network's output and of the losses (the mean of the training targets), so that training does
            not depend on the unit of the targets.
        invalid_below: targets up to this value are invalid; ``None``: only NaN is.
        file_scale: factor that was applied to the numbers in the target files when they were read.
        unit: unit of the values, for example ``m``.
        whole: whether the target files hold integers, so that predictions are saved as integers.

    Raises:
        UsageError: a loss is unknown, or it takes logarithms but values may be negative.
    """

    scale: float = 1.0
    invalid_below: float | None = 0.0
    file_scale: float = 1.0
    unit: str = ""
    loss_name: str = ""
    whole: bool = True

    name = "regression"
    meaning = "a number for each pixel"
    target_kind = "values"
    primary = "mae"
    higher_is_better = False
    losses = tuple(_LOSSES)

    def __post_init__(self) -> None:
        logarithmic = any(name == "silog" for _, name in self.loss_terms)
        if logarithmic and not self._positive:
            raise UsageError("silog needs positive values; set data.invalid_below to 0, or use l1, l2 or berhu")

    @property
    def _positive(self) -> bool:
        return self.invalid_below is not None and self.invalid_below >= 0

    def activation(self, logits: Tensor) -> Tensor:
        return self._in_units(logits) * self.scale

    def _in_units(self, logits: Tensor) -> Tensor:
        return F.softplus(logits) if self._positive else logits

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        valid = self.is_valid(target)
        scaled_target = torch.where(valid, target.float() / self.scale, 0.0)
        return _LOSSES[name](self._in_units(logits)[:, 0], scaled_target, valid)

    def soft_term(self, name: str, logits: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """Compute the squared error for ``l2``, and the absolute error for every other loss, in units of the scale."""
        error = squared if name == "l2" else absolute
        return error(self._in_units(logits), maps / self.scale, weight[:, None])

    def metrics(self) -> Metric:
        return RegressionMetrics(self.invalid_below)


@dataclass(frozen=True)
class DepthTask(RegressionTask):
    """Distance from the camera. Sensors write 0 where they measure nothing, so 0 is invalid by default."""

    name = "depth"
    meaning = "the distance from the camera at each pixel"
    pipeline_tag = "depth-estimation"
    default_invalid_below = 0.0
    in_metres = True
