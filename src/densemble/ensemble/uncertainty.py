"""Uncertainty of an ensemble from running sums: entropies, mutual information, variance.

With member probabilities p_m of weight w_m (summing to 1) and their mean p: predictive entropy H(p), expected entropy
sum_m w_m H(p_m), mutual information = their difference (Depeweg et al. 2018; Lakshminarayanan et al. 2017).
"""

import torch
from torch import Tensor

from densemble.tasks import Distribution

_TINY = 1e-12


def entropy(probabilities: Tensor, distribution: Distribution) -> Tensor:
    """Entropy in nats, ``(B, K, h, w)`` -> ``(B, h, w)``: over the channels, or the mean of Bernoulli entropies."""
    p = probabilities.clamp(0, 1)
    if distribution == "categorical":
        return -(p * p.clamp(min=_TINY).log()).sum(1)
    q = 1 - p
    return -(p * p.clamp(min=_TINY).log() + q * q.clamp(min=_TINY).log()).mean(1)


class RunningUncertainty:
    """Mean, variance and expected entropy of members that come one after the other (West 1979)."""

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._weight = 0.0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None
        self._entropy: Tensor | None = None

    def add(self, maps: Tensor, weight: float) -> None:
        """Takes one member's activated maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._weight += weight
        own = entropy(maps, self._distribution) * weight if self._distribution != "none" else None
        if self._mean is None or self._squares is None:
            self._mean, self._squares, self._entropy = maps.clone(), torch.zeros_like(maps), own
            return
        difference = maps - self._mean
        self._mean = self._mean + difference * (weight / self._weight)
        self._squares = self._squares + weight * difference * (maps - self._mean)
        if own is not None and self._entropy is not None:
            self._entropy = self._entropy + own

    def variance(self) -> Tensor:
        """Weighted population variance over the members, ``(B, K, h, w)``."""
        if self._squares is None:
            raise ValueError("the variance of no maps is not defined")
        return self._squares / self._weight

    def expected_entropy(self) -> Tensor | None:
        """Weighted mean of the members' entropies, ``(B, h, w)``; ``None`` where values are no probabilities."""
        return None if self._entropy is None else self._entropy / self._weight
