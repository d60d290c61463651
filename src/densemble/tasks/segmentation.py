"""Segmentation: one class per pixel."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from densemble.metrics import Metric, SegmentationMetrics
from densemble.tasks.base import Distribution, TargetKind, Task, without_defaults
from densemble.tasks.classes import default_ignore_index, require_classes, require_weights
from densemble.tasks.losses.categorical import cross_entropy, focal, lovasz, one_hot
from densemble.tasks.losses.dice import dice

_WEIGHTED = ("cross_entropy", "focal")


@dataclass(frozen=True)
class SegmentationTask(Task):
    """K channels, softmax. Targets: labels 0..K-1 and ``ignore_index``.

    Attributes:
        classes: names.
        ignore_index: label that is neither trained on nor scored.
        class_weights: one per class, for cross-entropy and focal; see :func:`balanced_weights`.

    Raises:
        UsageError: no classes, weights that do not fit, or an unknown loss.
    """

    classes: tuple[str, ...]
    ignore_index: int = 255
    class_weights: tuple[float, ...] | None = None
    loss_name: str = ""

    name = "segmentation"
    planes = False
    target_kind: ClassVar[TargetKind] = "labels"
    distribution: ClassVar[Distribution] = "categorical"
    primary = "miou"
    higher_is_better = True
    losses = ("cross_entropy", "dice", "focal", "lovasz")
    default_loss = "cross_entropy"

    def __post_init__(self) -> None:
        require_classes(self.name, self.classes)
        weighted = any(name in _WEIGHTED for _, name in self.mixture)
        require_weights(self.class_weights, self.classes, weighted, " or ".join(_WEIGHTED))

    @property
    def out_channels(self) -> int:
        return len(self.classes)

    @property
    def fill(self) -> float:
        return float(self.ignore_index)

    def activation(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, dim=1)

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        labels = target.long()
        valid = labels != self.ignore_index
        match name:
            case "cross_entropy":
                return cross_entropy(logits, labels, valid, self._weights(logits))
            case "focal":
                return focal(logits, labels, valid, self._weights(logits))
            case "dice":
                wanted = one_hot(labels, valid, self.out_channels)
                return dice(torch.softmax(logits, dim=1), wanted, valid[:, None])
            case _:
                return lovasz(torch.softmax(logits, dim=1), labels, valid)

    def _weights(self, logits: Tensor) -> Tensor | None:
        return None if self.class_weights is None else logits.new_tensor(self.class_weights)

    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        labels = target.long()[None]
        valid = labels != self.ignore_index
        return one_hot(labels, valid, self.out_channels)[0], valid

    def metrics(self) -> Metric:
        return SegmentationMetrics(len(self.classes), self.ignore_index)

    def describe(self) -> dict[str, Any]:
        chosen = without_defaults({"class_weights": self.class_weights, "loss_name": self.loss_name})
        return {"name": self.name, "classes": list(self.classes), "ignore_index": self.ignore_index, **chosen}


def make_segmentation(values: dict[str, Any]) -> Task:
    """From the plain values of ``describe``."""
    weights, classes = values.get("class_weights"), tuple(values.get("classes") or ())
    return SegmentationTask(
        classes,
        int(values.get("ignore_index", default_ignore_index(len(classes)))),
        None if weights is None else tuple(float(weight) for weight in weights),
        values.get("loss_name", ""),
    )
