"""Weighted means from running sums: of values, of logits, and without the extremes."""

import torch
from torch import Tensor

from densemble.ensemble.combine.log_odds import from_logits, to_logits
from densemble.tasks import Distribution


class WeightedMean:
    """Arithmetic mean of probabilities or values, weighted."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._weight = 0.0

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes one member's maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._sum = maps * weight if self._sum is None else torch.add(self._sum, maps, alpha=weight)
        self._weight += weight

    def result(self) -> Tensor:
        """The mean ``(B, K, h, w)``."""
        if self._sum is None:
            raise ValueError("the mean of no maps is not defined")
        return self._sum / self._weight


class LogitMean:
    """Mean of logits: for classes the geometric mean, made to sum to 1 (a logarithmic opinion pool; Heskes 1998).

    A member that is sure that something is not there counts more than in the arithmetic mean.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._mean = WeightedMean()

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes one member's probabilities ``(B, K, h, w)``; ``weight`` > 0."""
        self._mean.add(to_logits(maps, self._distribution), weight)

    def result(self) -> Tensor:
        """Probabilities ``(B, K, h, w)``."""
        return from_logits(self._mean.result(), self._distribution)


def as_distribution(shares: Tensor, otherwise: Tensor, distribution: Distribution) -> Tensor:
    """``shares`` ``(B, K, h, w)`` made to sum to 1 over K where they are of classes; ``otherwise`` where all are 0."""
    if distribution != "categorical":
        return shares
    total = shares.sum(1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp(min=torch.finfo(total.dtype).tiny), otherwise)


class TrimmedMean:
    """Weighted mean without the lowest and the highest member at each value; of fewer than three members the mean.

    Of members that are equally low, or high, the one with the least weight is left out, so that order does not matter.
    Where every class is left with 0 (members that are sure of different things), the mean of all stands.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._mean = WeightedMean()
        self._weight = 0.0
        self._members = 0
        self._low: tuple[Tensor, Tensor] | None = None
        self._high: tuple[Tensor, Tensor] | None = None

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes one member's maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._mean.add(maps, weight)
        self._weight += weight
        self._members += 1
        new = (maps, torch.full_like(maps, weight))
        self._low = new if self._low is None else _extreme(self._low, new, new[0] < self._low[0])
        self._high = new if self._high is None else _extreme(self._high, new, new[0] > self._high[0])

    def result(self) -> Tensor:
        """The mean of those left ``(B, K, h, w)``."""
        mean = self._mean.result()
        if self._low is None or self._high is None or self._members < 3:
            return mean
        (low, low_weight), (high, high_weight) = self._low, self._high
        left = mean * self._weight - low * low_weight - high * high_weight
        left_weight = (self._weight - low_weight - high_weight).clamp(min=self._weight * 1e-6)
        trimmed = (left / left_weight).clamp(low, high)  # differences of sums round
        return as_distribution(trimmed, mean, self._distribution)


def _extreme(kept: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Value and weight of the more extreme of two, of equal ones the lesser weight."""
    lighter = torch.where(new[0] == kept[0], torch.minimum(new[1], kept[1]), kept[1])
    return torch.where(beyond, new[0], kept[0]), torch.where(beyond, new[1], lighter)
