"""Majority vote."""

import torch
from torch import Tensor

from densemble.ensemble.combine.means import WeightedMean
from densemble.tasks import Distribution


class Vote:
    """Share of the weight that is for each class: where it is a member's most probable one, the first of equals.

    For Bernoulli probabilities: where it is at least one half.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._shares = WeightedMean()

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes one member's probabilities ``(B, K, h, w)``; ``weight`` > 0."""
        if self._distribution == "categorical":
            votes = torch.zeros_like(maps).scatter(1, maps.max(1, keepdim=True).indices, 1.0)
        else:
            votes = (maps >= 0.5).to(maps.dtype)
        self._shares.add(votes, weight)

    def result(self) -> Tensor:
        """Shares in [0, 1], ``(B, K, h, w)``; of classes they sum to 1."""
        return self._shares.result()
