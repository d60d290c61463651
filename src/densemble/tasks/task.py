"""What every task answers: channels, activation, loss, metrics, and how its targets look and move."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import Metric, Objective
from densemble.shapes import Size
from densemble.tasks.losses.mixture import parse_mixture

Distribution = Literal["bernoulli", "categorical", "none"]
"""What an activated value is: a probability per channel, one over the channels, or no probability."""

TargetKind = Literal["labels", "masks", "heat", "density", "values", "pixels"]
"""How targets look and move.

labels   integer ``(h, w)``
masks    integer ``(K, h, w)``: 0 or 1, 255 is ignored
heat     float ``(h, w)`` or ``(K, h, w)`` in [0, 1]
density  float ``(h, w)`` or ``(K, h, w)`` >= 0 whose sum is a count
values   float ``(h, w)``, NaN is invalid
pixels   float ``(K, h, w)`` in [0, 1], NaN is invalid
"""

_NAN = float("nan")
_FILL: dict[TargetKind, float] = {
    "labels": 255.0, "masks": 255.0, "heat": 0.0, "density": 0.0, "values": _NAN, "pixels": _NAN,
}  # fmt: skip
_OMITTED: dict[str, Any] = {"loss_name": "", "class_weights": None, "unit": "", "whole": True}
"""Fields that a description omits where they have this value."""


class Task(ABC):
    """Meaning of a map. A subclass is a frozen dataclass and, under its name, a row of ``TASKS``.

    A subclass sets ``name``, ``target_kind``, ``primary``, ``losses`` and the three abstract methods; the other traits
    have defaults. Its dataclass fields are what files keep of it; a field that is a row of
    ``densemble.data.facts.FACTS`` gets its value from the training data.

    Attributes:
        name: row of ``TASKS``.
        target_kind: how targets look and move.
        distribution: what an activated value is.
        primary: the metric that models are chosen by.
        higher_is_better: whether more of the primary metric is better.
        losses: names of the losses that the task knows.
        loss_name: the chosen losses, joined by ``+`` and weighted as ``0.5*dice``; empty: ``default_loss``.
        thorough_loss: ``loss_name`` under presets that train for long; empty: ``default_loss`` there too.
        classes: names of the channels; empty: one channel without a name.
        planes: whether targets have a K axis, for K = 1 too.
        blank_is_valid: whether a target that is 0 everywhere means something; else it is an error of the data.
        keeps_frame: whether targets depend on where the image ends, so that strong augmentation spoils them.
        in_metres: whether values are distances in metres, so that large ones look like millimetres.
        default_invalid_below: ``invalid_below`` where the settings leave it open.
        invalid_below: target values up to this one are invalid; ``None``: only NaN is.
        file_scale: factor from the numbers in target files to values; saved predictions are divided by it.
        whole: whether values are saved as whole numbers of 16 bits.
    """

    name: str
    target_kind: TargetKind
    distribution: Distribution = "none"
    primary: str
    higher_is_better: bool = True
    losses: tuple[str, ...]
    loss_name: str = ""
    thorough_loss: ClassVar[str] = ""
    classes: tuple[str, ...] = ()
    planes: bool = False
    blank_is_valid: ClassVar[bool] = True
    keeps_frame: ClassVar[bool] = False
    in_metres: ClassVar[bool] = False
    default_invalid_below: ClassVar[float | None] = None
    invalid_below: float | None = None
    file_scale: float = 1.0
    whole: bool = False

    @classmethod
    def choices(cls) -> tuple[str, ...]:
        """Names of the dataclass fields."""
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]

    @classmethod
    def kind_of(cls, heatmap: str) -> TargetKind:
        """The target kind of a data set; ``heatmap`` is the data option of that name."""
        return cls.target_kind

    @classmethod
    def default_out_size(cls, input_size: Size) -> Size | None:
        """(h, w) of the maps where the settings leave it open; ``None``: the size of the input."""
        return None

    @property
    def out_channels(self) -> int:
        """K."""
        return max(len(self.classes), 1)

    @property
    def fill(self) -> float:
        """What a target holds where nothing is known, for instance where augmentation leaves the image."""
        return _FILL[self.target_kind]

    @property
    def default_loss(self) -> str:
        """What an empty ``loss_name`` stands for: the first of ``losses`` unless a task says otherwise."""
        return self.losses[0]

    @property
    def has_temperature(self) -> bool:
        """Whether maps are probabilities of something observed, so that a temperature of the logits can be fitted."""
        return self.target_kind in ("labels", "masks")

    @property
    def mixture(self) -> tuple[tuple[float, str], ...]:
        """Weight and name of each loss that is summed.

        Raises:
            UsageError: ``loss_name`` names a loss that the task does not know.
        """
        return parse_mixture(self.loss_name or self.default_loss, self.losses, self.name)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar fp32 loss of logits ``(B, K, h, w)`` of any float type against a batch of targets.

        Exactly 0, with zero gradients, where nothing is valid.
        """
        # Under autocast even fp32 inputs would be convolved in half precision.
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            return torch.stack([weight * self.loss_term(name, logits, target) for weight, name in self.mixture]).sum()

    @abstractmethod
    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        """One of ``losses``: scalar of fp32 logits ``(B, K, h, w)`` against a batch of targets."""

    @abstractmethod
    def activation(self, logits: Tensor) -> Tensor:
        """Logits ``(B, K, h, w)`` -> probabilities or values of the same shape."""

    @abstractmethod
    def metrics(self) -> Metric:
        """A fresh accumulator of the task's metrics."""

    def is_valid(self, target: Tensor) -> Tensor:
        """Where a target of floats, of any shape, is known: bool of that shape."""
        finite = torch.isfinite(target)
        return finite if self.invalid_below is None else finite & (target > self.invalid_below)

    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The ideal activated map of one target; tasks of labels and masks have their own.

        Returns:
            float32 ``(K, h, w)``, 0 where invalid, and where it is valid, bool ``(1, h, w)`` or ``(K, h, w)``.
        """
        target = target if self.planes else target[None]
        valid = self.is_valid(target)
        return torch.where(valid, target.float(), 0.0), valid

    def objective(self, name: str | None = None) -> Objective:
        """One of the task's metrics to select by; default ``primary``.

        Raises:
            UsageError: the task has no such metric; those that it has get listed.
        """
        known, wanted = self.metrics().objectives, name or self.primary
        if wanted not in known:
            raise UsageError(f"{self.name} is not chosen by '{wanted}'; there are: {', '.join(known)}")
        return known[wanted]

    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_task` builds the same task."""
        values = {name: getattr(self, name) for name in self.choices()}
        kept = {name: value for name, value in values.items() if name not in _OMITTED or value != _OMITTED[name]}
        return {"name": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> Self:
        """The task of the plain values of :meth:`describe`; absent ones have their defaults."""
        known = {name: values[name] for name in cls.choices() if name in values}
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in known.items()})
