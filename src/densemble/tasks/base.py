"""What every task answers: channels, activation, loss, metrics, and how its targets look and move."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import Metric, Objective
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


class Task(ABC):
    """What a map means.

    Attributes:
        name: row of ``TASKS``.
        planes: whether targets have a K axis, for K = 1 too.
        loss_name: the chosen losses, joined by ``+`` and weighted as ``0.5*dice``; empty: ``default_loss``.
    """

    name: str
    planes: bool
    loss_name: str

    @property
    @abstractmethod
    def out_channels(self) -> int:
        """K."""

    @property
    @abstractmethod
    def target_kind(self) -> TargetKind:
        """How targets look and move."""

    @property
    @abstractmethod
    def fill(self) -> float:
        """What a target holds where augmentation leaves the picture."""

    @property
    @abstractmethod
    def distribution(self) -> Distribution:
        """What an activated value is."""

    @property
    def has_temperature(self) -> bool:
        """Whether maps are probabilities of something observed, so that a temperature of the logits can be fitted."""
        return self.target_kind in ("labels", "masks")

    @property
    @abstractmethod
    def primary(self) -> str:
        """The metric that models are chosen by."""

    @property
    @abstractmethod
    def higher_is_better(self) -> bool:
        """Whether more of the primary metric is better."""

    @property
    @abstractmethod
    def losses(self) -> tuple[str, ...]:
        """Names of the losses that the task knows."""

    @property
    @abstractmethod
    def default_loss(self) -> str:
        """What an empty ``loss_name`` stands for."""

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
    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The ideal activated map of one target.

        Returns:
            float32 ``(K, h, w)``, 0 where invalid, and where it is valid, bool ``(1, h, w)`` or ``(K, h, w)``.
        """

    @abstractmethod
    def metrics(self) -> Metric:
        """A fresh accumulator of the task's metrics."""

    def objective(self, name: str | None = None) -> Objective:
        """One of the task's metrics to select by; default ``primary``.

        Raises:
            UsageError: the task has no such metric; those that it has get listed.
        """
        known, wanted = self.metrics().objectives, name or self.primary
        if wanted not in known:
            raise UsageError(f"{self.name} is not chosen by '{wanted}'; there are: {', '.join(known)}")
        return known[wanted]

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_task` builds the same task; choices left at their default are absent."""


def without_defaults(choices: dict[str, Any]) -> dict[str, Any]:
    """Those choices that were made: neither ``None`` nor empty; tuples as lists."""
    made = {key: value for key, value in choices.items() if value not in (None, "", ())}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in made.items()}
