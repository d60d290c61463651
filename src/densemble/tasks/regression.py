"""Regression and depth: one value per pixel."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import Metric, RegressionMetrics
from densemble.tasks.base import Distribution, TargetKind, Task, without_defaults
from densemble.tasks.losses.values import absolute, reverse_huber, scale_invariant_log, squared

_NAMES = ("regression", "depth")


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
        name: ``regression`` or ``depth``.

    Raises:
        UsageError: an unknown loss or name, or a loss of logarithms where values may be negative.
    """

    scale: float = 1.0
    invalid_below: float | None = 0.0
    file_scale: float = 1.0
    unit: str = ""
    loss_name: str = ""
    name: str = "regression"
    whole: bool = True

    planes = False
    out_channels = 1
    target_kind: ClassVar[TargetKind] = "values"
    fill = float("nan")
    distribution: ClassVar[Distribution] = "none"
    primary = "mae"
    higher_is_better = False
    losses = ("l1", "l2", "silog", "berhu")
    default_loss = "l1"

    def __post_init__(self) -> None:
        if self.name not in _NAMES:
            raise UsageError(f"a task of values is named {' or '.join(_NAMES)}, not '{self.name}'")
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
        valid = self._valid(target)
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

    def _valid(self, target: Tensor) -> Tensor:
        finite = torch.isfinite(target)
        return finite if self.invalid_below is None else finite & (target > self.invalid_below)

    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        valid = self._valid(target)
        return torch.where(valid, target.float(), 0.0)[None], valid[None]

    def metrics(self) -> Metric:
        return RegressionMetrics(self.invalid_below)

    def describe(self) -> dict[str, Any]:
        kept = {"scale": self.scale, "invalid_below": self.invalid_below, "file_scale": self.file_scale}
        fractions = {} if self.whole else {"whole": False}
        chosen = without_defaults({"unit": self.unit, "loss_name": self.loss_name})
        return {"name": self.name, **kept, **fractions, **chosen}


def make_regression(values: dict[str, Any]) -> Task:
    """From the plain values of ``describe``; ``name`` decides between regression and depth."""
    return RegressionTask(
        scale=float(values.get("scale", 1.0)),
        invalid_below=values.get("invalid_below", 0.0),
        file_scale=values.get("file_scale", 1.0),
        unit=values.get("unit", ""),
        loss_name=values.get("loss_name", ""),
        name=values["name"],
        whole=bool(values.get("whole", True)),
    )
