"""Multilabel segmentation: a pixel can have several classes, or none."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.metrics import Metric, MultilabelMetrics
from densemble.metrics.multilabel import IGNORED
from densemble.tasks.class_settings import require_classes, require_weights
from densemble.tasks.losses.binary import binary_cross_entropy, binary_divergence, binary_focal
from densemble.tasks.losses.dice import dice
from densemble.tasks.task import Task

_WEIGHTED = ("bce", "focal")


@dataclass(frozen=True)
class MultilabelTask(Task):
    """K independent sigmoid channels. Targets: masks ``(K, h, w)`` of 0 and 1; 255 is ignored.

    Attributes:
        classes: names.
        class_weights: weight of a positive pixel of each class, for binary cross-entropy and focal loss.

    Raises:
        UsageError: there are no classes, weights do not match them, or a loss is unknown.
    """

    classes: tuple[str, ...] = ()
    class_weights: tuple[float, ...] | None = None
    loss_name: str = ""

    name = "multilabel"
    meaning = "the classes at each pixel; there may be several or none"
    pipeline_tag = "image-segmentation"
    planes = True
    target_kind = "masks"
    distribution = "bernoulli"
    primary = "miou"
    losses = ("bce", "dice", "focal")

    def __post_init__(self) -> None:
        require_classes(self.name, self.classes)
        require_weights(self.class_weights, self.classes, self.loss_terms, _WEIGHTED)

    def activation(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        ideal, valid = self.as_maps(target)
        match name:
            case "bce":
                return binary_cross_entropy(logits, ideal, valid, self._positive_weight(logits))
            case "focal":
                return binary_focal(logits, ideal, valid, self._positive_weight(logits))
            case _:
                return dice(torch.sigmoid(logits), ideal, valid)

    def soft_term(self, name: str, logits: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """Compute soft Dice for ``dice``, and the KL divergence for every other loss.

        The weight of positive pixels of a class scales a pixel by the probability of the class.
        """
        pixels = weight[:, None].expand_as(maps)
        if name == "dice":
            return dice(torch.sigmoid(logits), maps, pixels)
        positive_weight = self._positive_weight(logits)
        scale = pixels if positive_weight is None else pixels * (1 + maps * (positive_weight - 1))
        return binary_divergence(logits, maps, scale)

    def _positive_weight(self, logits: Tensor) -> Tensor | None:
        return None if self.class_weights is None else logits.new_tensor(self.class_weights)[:, None, None]

    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        valid = target != IGNORED
        return ((target != 0) & valid).float(), valid

    def metrics(self) -> Metric:
        return MultilabelMetrics(len(self.classes))
