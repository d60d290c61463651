"""The weighted median at each value."""

import torch
from torch import Tensor

from densemble.ensemble.combine.means import WeightedMean, as_distribution
from densemble.tasks import Distribution

_ROUNDING = 1e-5
"""Shares that are this close to one half are one half: sums of 32-bit shares round."""


class WeightedMedian:
    """The value with half of the weight on either side; between two such values, the middle.

    Keeps all members: memory grows with their number. Medians of classes are made to sum to 1; where all are 0
    (members that are sure of different things), the mean stands.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._mean = WeightedMean()
        self._maps: list[Tensor] = []
        self._weights: list[float] = []

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes and keeps one member's maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._mean.add(maps, weight)
        self._maps.append(maps)
        self._weights.append(weight)

    def result(self) -> Tensor:
        """The medians ``(B, K, h, w)``."""
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
