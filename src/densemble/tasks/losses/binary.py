"""Losses of independent yes-or-no channels: logits, 0/1 targets and valid, all ``(B, K, h, w)``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.tasks.losses.masked import masked_mean

_GAMMA = 2


def binary_cross_entropy(logits: Tensor, wanted: Tensor, valid: Tensor, positive_weight: Tensor | None) -> Tensor:
    """Binary cross-entropy in nats; positives count ``positive_weight`` ``(K, 1, 1)`` times."""
    return masked_mean(_weighted_surprise(logits, wanted, positive_weight), valid)


def binary_focal(logits: Tensor, wanted: Tensor, valid: Tensor, positive_weight: Tensor | None) -> Tensor:
    """Binary cross-entropy times (1 - p)^2, p the probability of what is true (Lin et al. 2017)."""
    p = torch.sigmoid(logits)
    missed = wanted * (1 - p) + (1 - wanted) * p
    return masked_mean(missed**_GAMMA * _weighted_surprise(logits, wanted, positive_weight), valid)


def _weighted_surprise(logits: Tensor, wanted: Tensor, positive_weight: Tensor | None) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=positive_weight, reduction="none")
