"""Losses of maps as distributions, predictions and targets >= 0 ``(B, N)`` (Bylinskii et al. 2019; Cornia et al. 2018).

Targets that are 0 everywhere are not distributions and are left out.
"""

import torch
from torch import Tensor

from densemble.tasks.losses.masked import masked_mean

_EPSILON = 1e-8


def divergence(prediction: Tensor, target: Tensor) -> Tensor:
    """KL divergence of the prediction from the target, in nats."""
    p = prediction / (prediction.sum(1, keepdim=True) + _EPSILON)
    q = target / (target.sum(1, keepdim=True) + _EPSILON)
    return masked_mean((q * torch.log(q / (p + _EPSILON) + _EPSILON)).sum(1), target.sum(1) > 0)


def decorrelation(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute 1 - Pearson's correlation."""
    a = prediction - prediction.mean(1, keepdim=True)
    b = target - target.mean(1, keepdim=True)
    correlation = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + _EPSILON)
    return masked_mean(1 - correlation, target.sum(1) > 0)
