"""Weighted median of each value."""

import torch
from torch import Tensor

from densemble.ensemble.combine.means import WeightedMean, as_distribution
from densemble.tasks import Distribution

_ROUNDING = 1e-5
"""Shares that differ from one half by less are treated as one half: sums of float32 shares have rounding errors."""


class WeightedMedian:
    """Value with half of the weight on either side; the middle of two such values.

    Stores the maps of all members, so memory grows with their number. Medians of class probabilities are normalized to
    sum to 1; where all are 0 (members certain of different classes), the result is the mean.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._mean = WeightedMean()
        self._maps: list[Tensor] = []
        self._weights: list[float] = []

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add and store one member's maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._mean.add(maps, weight)
        self._maps.append(maps)
        self._weights.append(weight)

    def result(self) -> Tensor:
        """Return the medians ``(B, K, h, w)``."""
        mean = self._mean.result()
        values, order = torch.stack(self._maps).sort(0)
        total = sum(self._weights)
        shares = values.new_tensor([weight / total for weight in self._weights])
        reached = shares[order].cumsum(0)
        last = len(self._maps) - 1
        lower, upper = (
            values.gather(0, (reached < half).sum(0, keepdim=True).clamp(max=last))[0]
            for half in (0.5 - _ROUNDING, 0.5 + _ROUNDING)
        )
        return as_distribution((lower + upper) / 2, mean, self._distribution)
