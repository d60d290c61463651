"""Calibration: one temperature for all members, so that their mean says how often it is right."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densemble.tasks import Distribution

LOWEST, HIGHEST = 0.2, 5.0
_SMALLEST = 1e-7
"""Probabilities are kept as 16-bit floats, whose smallest positive value is 6e-8."""


def temper(maps: Tensor, temperature: float, distribution: Distribution) -> Tensor:
    """Probabilities as if their logits had been divided by a temperature (Guo et al. 2017).

    Args:
        maps: ``(B, K, ...)``: categorical over K, or K Bernoulli probabilities; anything else is returned as it is.
        temperature: above 1 less sure, below 1 surer.
    """
    if temperature == 1 or distribution == "none":
        return maps
    if distribution == "categorical":
        return torch.softmax(maps.clamp(min=_SMALLEST).log() / temperature, dim=1)
    return torch.sigmoid(torch.logit(maps, eps=_SMALLEST) / temperature)


def log_loss(
    members: Sequence[Tensor], weights: Sequence[float], truth: Tensor, temperature: float, distribution: Distribution
) -> float:
    """Negative log-likelihood per value, in nats, of the weighted mean of tempered members.

    Args:
        members: probabilities ``(N, K)`` of N pixels, one tensor per member.
        weights: one each, summing to 1.
        truth: categorical: labels ``(N,)``; Bernoulli: ``(N, K)`` of 0 and 1, another number where it is unknown.
    """
    mean = torch.zeros_like(members[0])
    for maps, weight in zip(members, weights, strict=True):
        mean += weight * temper(maps, temperature, distribution)
    if distribution == "categorical":
        return float(-mean.gather(1, truth[:, None].long()).clamp(min=_SMALLEST).log().mean())
    known = (truth == 0) | (truth == 1)
    chosen = torch.where(truth == 1, mean, 1 - mean)[known]
    return float(-chosen.clamp(min=_SMALLEST).log().mean()) if known.any() else 0.0


def fit_temperature(
    members: Sequence[Tensor], weights: Sequence[float], truth: Tensor, distribution: Distribution
) -> float:
    """The temperature between 0.2 and 5 that makes held-out pixels likeliest, shared by all members.

    It is applied to members and fitted through their mean: an ensemble of calibrated members is underconfident
    (Rahaman & Thiery 2021). Arguments as in :func:`log_loss`.
    """
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        return log_loss(members, weights, truth, float(2**logarithm), distribution)

    low, high = (float(torch.log2(torch.tensor(value))) for value in (LOWEST, HIGHEST))
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 0.01})
    best = float(2**found.x)
    return best if loss(found.x) < loss(0.0) else 1.0
