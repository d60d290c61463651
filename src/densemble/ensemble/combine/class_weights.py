"""Combination with one weight per member and class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densemble.ensemble.combine.fit_images import as_shares, log_loss, sample_pixels
from densemble.ensemble.combine.means import as_distribution
from densemble.ensemble.combine.minimize import minimize
from densemble.ensemble.combine.rule import Fitted, Images, fitted_tensor
from densemble.tasks import Task

_PULL = 1e-3
"""Penalty, in nats, per squared difference between the logarithm of a weight and its initial value."""


class ClassWeights:
    """Weighted mean with a weight for each member and class; class probabilities are normalized to sum to 1.

    Args:
        task: task whose channels are weighted.
        fitted: ``class_weights`` ``(M, K)``, summing to 1 over the members.

    Raises:
        UsageError: the weights are missing or have another shape.
    """

    def __init__(self, task: Task, fitted: Fitted) -> None:
        self._distribution = task.distribution
        self._weights = fitted_tensor(fitted, "class_weights", None, task.out_channels)
        self._sum: Tensor | None = None
        self._weight: Tensor | None = None

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add the maps ``(B, K, h, w)`` of member ``index``."""
        weights = self._weights[index].to(maps)[:, None, None]
        self._sum = maps * weights if self._sum is None else self._sum + maps * weights
        self._weight = weights if self._weight is None else self._weight + weights

    def result(self) -> Tensor:
        """Return probabilities ``(B, K, h, w)``."""
        if self._sum is None or self._weight is None:
            raise ValueError("the mean of no maps is not defined")
        mean = self._sum / self._weight
        return as_distribution(mean, mean, self._distribution)


def fit_class_weights(images: Images, weights: Sequence[float], task: Task) -> dict[str, Tensor]:
    """Fit weights by maximum likelihood on a sample of held-out pixels, starting from ``weights``, one per member.

    Raises:
        DataError: no pixel has a known target, or a map is not finite.
    """
    sample = sample_pixels(images, task)
    start = as_shares(weights).log()[:, None].repeat(1, task.out_channels)

    def loss(logarithms: Tensor) -> Tensor:
        mean = (sample.values * logarithms.softmax(0)).sum(1)
        combined = as_distribution(mean, mean, task.distribution)
        return log_loss(combined, sample, task.distribution) + _PULL * (logarithms - start).square().sum()

    return {"class_weights": torch.softmax(minimize(loss, start), dim=0)}
