"""Regression and depth: one value per pixel."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import Metric, RegressionMetrics
from densemble.tasks.losses.values import absolute, reverse_huber, scale_invariant_log, squared
from densemble.tasks.task import Task


@dataclass(frozen=True)
class RegressionTask(Task):
    """One channel. Targets: float, NaN or <= ``invalid_below`` is invalid.

    Where only positive values are valid the output is kept positive by a softplus.

    Attributes:
        scale: the unit that the network works in and losses are told in (the mean of the training targets), so that
            millimetres and metres train alike.
        invalid_below: targets up to this value are invalid; ``None``: only NaN is.
        file_scale: what the numbers in the target files were multiplied by when they were read.
        unit: of the values, for instance ``m``.
        whole: whether the target files hold whole numbers, and predictions are saved as such.

    Raises:
        UsageError: an unknown loss, or a loss of logarithms where values may be negative.
    """

    scale: float = 1.0
    invalid_below: float | None = 0.0
    file_scale: float = 1.0
    unit: str = ""
    loss_name: str = ""
    whole: bool = True

    name = "regression"
    target_kind = "values"
    primary = "mae"
    higher_is_better = False
    losses = ("l1", "l2", "silog", "berhu")

    def __post_init__(self) -> None:
        logarithmic = any(name == "silog" for _, name in self.mixture)
        if logarithmic and not self._positive:
            raise UsageError("silog needs positive values; set data.invalid_below to 0, or choose l1, l2 or berhu")

    @property
    def _positive(self) -> bool:
        return self.invalid_below is not None and self.invalid_below >= 0

    def activation(self, logits: Tensor) -> Tensor:
        return self._in_units(logits) * self.scale

    def _in_units(self, logits: Tensor) -> Tensor:
        return F.softplus(logits) if self._positive else logits

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        valid = self.is_valid(target)
        wanted = torch.where(valid, target.float() / self.scale, 0.0)
        prediction = self._in_units(logits)[:, 0]
        match name:
            case "l1":
                return absolute(prediction, wanted, valid)
            case "l2":
                return squared(prediction, wanted, valid)
            case "silog":
                return scale_invariant_log(prediction, wanted, valid)
            case _:
                return reverse_huber(prediction, wanted, valid)

    def metrics(self) -> Metric:
        return RegressionMetrics(self.invalid_below)


@dataclass(frozen=True)
class DepthTask(RegressionTask):
    """Distance from the camera. Sensors write 0 where they measure none, so that 0 is invalid by default."""

    name = "depth"
    default_invalid_below = 0.0
    in_metres = True
