"""Tasks: what a map means. Each gives channels, activation, loss, metrics and its plain description."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.errors import UsageError
from densemble.metrics import Metric, RegressionMetrics, SaliencyMetrics, SegmentationMetrics

Distribution = Literal["bernoulli", "categorical", "none"]
_EPSILON = 1e-8


class Task(ABC):
    """What a map means.

    Attributes:
        name: row of ``TASKS``.
        out_channels: K.
        primary: the metric that models are chosen by.
        higher_is_better: whether more of it is better.
        distribution: what an activated value is: a probability per channel (``bernoulli``), one over the channels
            (``categorical``), or no probability (``none``).
    """

    name: str
    out_channels: int
    primary: str
    higher_is_better: bool
    distribution: Distribution

    @abstractmethod
    def activation(self, logits: Tensor) -> Tensor:
        """Logits ``(B, K, h, w)`` -> probabilities or values of the same shape."""

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss in fp32 of logits ``(B, K, h, w)`` against targets ``(B, h, w)``; 0 where nothing is valid."""

    @abstractmethod
    def metrics(self) -> Metric:
        """A fresh accumulator of the task's metrics."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_task` builds the same task."""


@dataclass(frozen=True)
class SaliencyTask(Task):
    """Where people look: one channel, sigmoid. Targets: density maps in [0, 1].

    The loss is KL divergence + (1 - correlation) of the maps as distributions, as is usual in saliency
    (Bylinskii et al. 2019; Cornia et al. 2018), + binary cross-entropy, which fixes the scale that both leave open.
    """

    name = "saliency"
    out_channels = 1
    primary = "cc"
    higher_is_better = True
    distribution = "bernoulli"

    def activation(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        flat = logits.float().flatten(1)
        wanted = target.float().flatten(1)
        some = (wanted.sum(1) > 0).float()
        predicted = torch.sigmoid(flat)
        p = predicted / (predicted.sum(1, keepdim=True) + _EPSILON)
        q = wanted / (wanted.sum(1, keepdim=True) + _EPSILON)
        divergence = (q * torch.log(q / (p + _EPSILON) + _EPSILON)).sum(1)
        a = predicted - predicted.mean(1, keepdim=True)
        b = wanted - wanted.mean(1, keepdim=True)
        correlation = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + _EPSILON)
        shape_loss = (some * (divergence + 1 - correlation)).sum() / some.sum().clamp(min=1)
        total: Tensor = shape_loss + F.binary_cross_entropy_with_logits(flat, wanted)
        return total

    def metrics(self) -> Metric:
        return SaliencyMetrics()

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


@dataclass(frozen=True)
class SegmentationTask(Task):
    """One class per pixel: K channels, softmax, cross-entropy. Targets: labels 0..K-1 and ``ignore_index``."""

    classes: tuple[str, ...]
    ignore_index: int = 255

    name = "segmentation"
    primary = "miou"
    higher_is_better = True
    distribution = "categorical"

    @property
    def out_channels(self) -> int:  # type: ignore[override]
        return len(self.classes)

    def activation(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, dim=1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        total = F.cross_entropy(logits.float(), target.long(), ignore_index=self.ignore_index, reduction="sum")
        return total / (target != self.ignore_index).sum().clamp(min=1)

    def metrics(self) -> Metric:
        return SegmentationMetrics(len(self.classes), self.ignore_index)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "classes": list(self.classes), "ignore_index": self.ignore_index}


@dataclass(frozen=True)
class RegressionTask(Task):
    """One value per pixel (depth): L1 loss over valid pixels. Targets: float, NaN or <= ``invalid_below`` is invalid.

    The network works in units of ``scale`` (the mean of the training targets), so that millimetres and metres
    train alike; ``file_scale`` is what the numbers in the target files were multiplied by when they were read.
    Where only positive values are valid the output is kept positive by a softplus.
    """

    scale: float = 1.0
    invalid_below: float | None = 0.0
    file_scale: float = 1.0

    name = "regression"
    out_channels = 1
    primary = "mae"
    higher_is_better = False
    distribution = "none"

    def activation(self, logits: Tensor) -> Tensor:
        positive = self.invalid_below is not None and self.invalid_below >= 0
        return (F.softplus(logits) if positive else logits) * self.scale

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.float()
        valid = torch.isfinite(target)
        if self.invalid_below is not None:
            valid = valid & (target > self.invalid_below)
        error = (self.activation(logits.float())[:, 0] - torch.where(valid, target, 0.0)).abs() / self.scale
        return (error * valid).sum() / valid.sum().clamp(min=1)

    def metrics(self) -> Metric:
        return RegressionMetrics(self.invalid_below)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "scale": self.scale,
            "invalid_below": self.invalid_below,
            "file_scale": self.file_scale,
        }


def _saliency(values: dict[str, Any]) -> Task:
    return SaliencyTask()


def _segmentation(values: dict[str, Any]) -> Task:
    return SegmentationTask(tuple(values["classes"]), int(values.get("ignore_index", 255)))


def _regression(values: dict[str, Any]) -> Task:
    return RegressionTask(
        float(values.get("scale", 1.0)), values.get("invalid_below", 0.0), values.get("file_scale", 1.0)
    )


TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "saliency": _saliency,
    "segmentation": _segmentation,
    "regression": _regression,
    "depth": _regression,
}
"""Task by name: called with the plain values of :meth:`Task.describe`."""


def require_task(name: str) -> str:
    """``name`` if it is a task.

    Raises:
        UsageError: it is not; those that are get listed.
    """
    if name not in TASKS:
        raise UsageError(f"no task is named '{name}'; there are: {', '.join(TASKS)}")
    return name


def make_task(values: dict[str, Any]) -> Task:
    """A task from its plain description (see :meth:`Task.describe`).

    Raises:
        UsageError: unknown name.
    """
    return TASKS[require_task(str(values.get("name")))](values)
