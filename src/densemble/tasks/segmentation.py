"""Segmentation: one class per pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from densemble.metrics import Metric, SegmentationMetrics
from densemble.tasks.class_settings import default_ignore_index, require_classes, require_weights
from densemble.tasks.losses.categorical import cross_entropy, divergence, focal, lovasz, one_hot
from densemble.tasks.losses.dice import dice
from densemble.tasks.task import Task

_WEIGHTED = ("cross_entropy", "focal")


@dataclass(frozen=True)
class SegmentationTask(Task):
    """K channels, softmax. Targets: labels 0..K-1 and ``ignore_index``.

    Attributes:
        classes: names.
        ignore_index: label that is neither used in training nor scored.
        class_weights: one per class, for cross-entropy and focal loss; see :func:`balanced_weights`.

    Raises:
        UsageError: there are no classes, weights do not match them, or a loss is unknown.
    """

    classes: tuple[str, ...] = ()
    ignore_index: int = 255
    class_weights: tuple[float, ...] | None = None
    loss_name: str = ""

    name = "segmentation"
    meaning = "the class of each pixel"
    pipeline_tag = "image-segmentation"
    target_kind = "labels"
    distribution = "categorical"
    primary = "miou"
    losses = ("cross_entropy", "dice", "focal", "lovasz")
    thorough_loss = "cross_entropy+dice"

    def __post_init__(self) -> None:
        require_classes(self.name, self.classes)
        require_weights(self.class_weights, self.classes, self.loss_terms, _WEIGHTED)

    @property
    def fill(self) -> float:
        return float(self.ignore_index)

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> Self:
        usual = default_ignore_index(len(values.get("classes") or ()))
        return super().described({"ignore_index": usual, **values})

    def activation(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, dim=1)

    def target_for_user(self, target: Tensor) -> Tensor:
        """Return labels in which unknown pixels are 255 (65535 if 255 is a class), whatever ``ignore_index`` is."""
        unknown = default_ignore_index(len(self.classes))
        labels = target if unknown <= 255 else target.long()
        return torch.where(target != self.ignore_index, labels, torch.full_like(labels, unknown))

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        labels = target.long()
        valid = labels != self.ignore_index
        match name:
            case "cross_entropy":
                return cross_entropy(logits, labels, valid, self._weights(logits))
            case "focal":
                return focal(logits, labels, valid, self._weights(logits))
            case "dice":
                ideal = one_hot(labels, valid, self.out_channels)
                return dice(torch.softmax(logits, dim=1), ideal, valid[:, None])
            case _:
                return lovasz(torch.softmax(logits, dim=1), labels, valid)

    def soft_term(self, name: str, logits: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """Compute soft Dice for ``dice``, and the KL divergence for every other loss.

        With squares in its denominator, soft Dice is lowest at equal maps (Wang et al. 2023, "Dice Semimetric Losses").
        A class weight scales the pixels by the probability of the class.
        """
        class_weights = self._weights(logits)
        if name == "dice":
            return dice(torch.softmax(logits, dim=1), maps, weight[:, None])
        if class_weights is not None:
            weight = weight * torch.einsum("bkhw,k->bhw", maps, class_weights)
        return divergence(logits, maps, weight)

    def _weights(self, logits: Tensor) -> Tensor | None:
        return None if self.class_weights is None else logits.new_tensor(self.class_weights)

    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        labels = target.long()[None]
        valid = labels != self.ignore_index
        return one_hot(labels, valid, self.out_channels)[0], valid

    def metrics(self) -> Metric:
        return SegmentationMetrics(len(self.classes), self.ignore_index)
