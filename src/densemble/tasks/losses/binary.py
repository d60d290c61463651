"""Losses of independent binary channels: logits, 0/1 targets and valid pixels, all ``(B, K, h, w)``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.tasks.losses.masked import masked_mean

_GAMMA = 2


def binary_cross_entropy(logits: Tensor, target: Tensor, valid: Tensor, positive_weight: Tensor | None) -> Tensor:
    """Binary cross-entropy in nats; positives are weighted by ``positive_weight`` ``(K, 1, 1)``."""
    return masked_mean(_cross_entropy_map(logits, target, positive_weight), valid)


def binary_focal(logits: Tensor, target: Tensor, valid: Tensor, positive_weight: Tensor | None) -> Tensor:
    """Binary cross-entropy times (1 - p)^2, where p is the probability of the target (Lin et al. 2017)."""
    p = torch.sigmoid(logits)
    missed = target * (1 - p) + (1 - target) * p
    return masked_mean(missed**_GAMMA * _cross_entropy_map(logits, target, positive_weight), valid)


def binary_divergence(logits: Tensor, probabilities: Tensor, weight: Tensor) -> Tensor:
    """KL divergence of the prediction from probabilities, in nats; all ``(B, K, h, w)``."""
    p, q = probabilities, 1 - probabilities
    certain = torch.xlogy(p, p) + torch.xlogy(q, q)
    return masked_mean(_cross_entropy_map(logits, p, None) + certain, weight)


def _cross_entropy_map(logits: Tensor, target: Tensor, positive_weight: Tensor | None) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=positive_weight, reduction="none")
