"""Saliency: the regions that people look at."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.metrics import Metric, SaliencyMetrics
from densemble.shapes import Size
from densemble.tasks.losses.saliency import decorrelation, divergence
from densemble.tasks.task import Task

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kld": lambda logits, target: divergence(torch.sigmoid(logits), target),
    "cc": lambda logits, target: decorrelation(torch.sigmoid(logits), target),
    "bce": F.binary_cross_entropy_with_logits,
    "mse": lambda logits, target: F.mse_loss(torch.sigmoid(logits), target),
}
"""Loss functions by name; each takes logits ``(B, N)`` and targets ``(B, N)``."""


@dataclass(frozen=True)
class SaliencyTask(Task):
    """One channel with a sigmoid. Targets: heat maps in [0, 1], in which higher values mean more attention.

    The default loss is the sum of the KL divergence, 1 - correlation and the binary cross-entropy. The first two are
    common in saliency prediction (Bylinskii et al. 2019; Cornia et al. 2018). They do not depend on the scale of the
    map; the cross-entropy determines the scale.

    Raises:
        UsageError: ``loss_name`` names an unknown loss.
    """

    loss_name: str = ""

    name = "saliency"
    meaning = "where people look; higher values mean more attention"
    target_kind = "heat"
    distribution = "bernoulli"
    primary = "cc"
    losses = tuple(_LOSSES)
    default_loss = "kld+cc+bce"
    blank_is_valid = False
    keeps_frame = True

    @classmethod
    def default_out_size(cls, input_size: Size) -> Size:
        return 48, 64

    def activation(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        return _LOSSES[name](logits.flatten(1), target.float().flatten(1))

    def metrics(self) -> Metric:
        return SaliencyMetrics()
