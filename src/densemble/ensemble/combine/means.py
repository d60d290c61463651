"""Weighted means from running sums: of values, of transformed values, and without the extremes."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from densemble.ensemble.combine.log_odds import from_logits, to_logits
from densemble.tasks import Distribution


class WeightedMean:
    """Weighted arithmetic mean of probabilities or values."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._weight = 0.0

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add one member's maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._sum = maps * weight if self._sum is None else torch.add(self._sum, maps, alpha=weight)
        self._weight += weight

    def result(self) -> Tensor:
        """Return the mean ``(B, K, h, w)``."""
        if self._sum is None:
            raise ValueError("the mean of no maps is not defined")
        return self._sum / self._weight


class TransformedMean:
    """Weighted mean of transformed maps.

    Args:
        transform: applied to the maps of each member.
        inverse: applied to the mean; default: nothing.
    """

    def __init__(
        self, transform: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor] = lambda mean: mean
    ) -> None:
        self._transform, self._inverse = transform, inverse
        self._mean = WeightedMean()

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add one member's maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._mean.add(self._transform(maps), weight)

    def result(self) -> Tensor:
        """Return the combined maps ``(B, K, h, w)``."""
        return self._inverse(self._mean.result())


def logit_mean(distribution: Distribution) -> TransformedMean:
    """Mean of logits; for classes the geometric mean, normalized to sum to 1 (logarithmic opinion pool; Heskes 1998).

    A member with a probability near 0 has more influence than in the arithmetic mean.
    """
    return TransformedMean(
        partial(to_logits, distribution=distribution), partial(from_logits, distribution=distribution)
    )


def as_distribution(shares: Tensor, otherwise: Tensor, distribution: Distribution) -> Tensor:
    """Normalize class probabilities ``shares`` ``(B, K, h, w)`` to sum to 1 over K; use ``otherwise`` where all are 0.

    Maps of other distributions are returned unchanged.
    """
    if distribution != "categorical":
        return shares
    total = shares.sum(1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp(min=torch.finfo(total.dtype).tiny), otherwise)


class TrimmedMean:
    """Weighted mean without the lowest and the highest member at each value; with fewer than three members the mean.

    If several members are equally low or high, the one with the least weight is removed, so the result does not depend
    on their order. Where the remaining values are 0 for every class (members certain of different classes), the result
    is the mean of all members.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._mean = WeightedMean()
        self._weight = 0.0
        self._members = 0
        self._low: tuple[Tensor, Tensor] | None = None
        self._high: tuple[Tensor, Tensor] | None = None

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add one member's maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._mean.add(maps, weight)
        self._weight += weight
        self._members += 1
        new = (maps, torch.full_like(maps, weight))
        self._low = new if self._low is None else _extreme(self._low, new, new[0] < self._low[0])
        self._high = new if self._high is None else _extreme(self._high, new, new[0] > self._high[0])

    def result(self) -> Tensor:
        """Return the mean of the remaining members ``(B, K, h, w)``."""
        mean = self._mean.result()
        if self._low is None or self._high is None or self._members < 3:
            return mean
        (low, low_weight), (high, high_weight) = self._low, self._high
        remaining = mean * self._weight - low * low_weight - high * high_weight
        remaining_weight = (self._weight - low_weight - high_weight).clamp(min=self._weight * 1e-6)
        trimmed = (remaining / remaining_weight).clamp(low, high)  # differences of sums have rounding errors
        return as_distribution(trimmed, mean, self._distribution)


def _extreme(kept: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Return value and weight of the more extreme of two members; of equal ones the smaller weight."""
    lighter = torch.where(new[0] == kept[0], torch.minimum(new[1], kept[1]), kept[1])
    return torch.where(beyond, new[0], kept[0]), torch.where(beyond, new[1], lighter)
