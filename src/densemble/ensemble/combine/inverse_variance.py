"""Combination with weights of 1 / squared error."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densemble.ensemble.combine.fit_images import aligned, as_shares, require_known_pixels
from densemble.ensemble.combine.means import WeightedMean
from densemble.ensemble.combine.rule import Fitted, Images, fitted_tensor
from densemble.tasks import Task

_MOST_EXACT = 1e-6
"""Lower limit of squared errors relative to the largest one, so a member without errors does not get all weight."""


class InverseVariance:
    """Weighted mean with weights of 1 / squared error: optimal if the members' errors are independent.

    Args:
        fitted: ``precisions`` ``(M,)``.

    Raises:
        UsageError: the precisions are missing or have another shape.
    """

    def __init__(self, fitted: Fitted) -> None:
        self._precisions = [float(precision) for precision in fitted_tensor(fitted, "precisions", None)]
        self._mean = WeightedMean()

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add the maps ``(B, K, h, w)`` of member ``index``."""
        self._mean.add(maps, self._precisions[index])

    def result(self) -> Tensor:
        """Return the mean ``(B, K, h, w)``."""
        return self._mean.result()


def fit_inverse_variance(images: Images, weights: Sequence[float], task: Task) -> dict[str, Tensor]:
    """Divide ``weights``, one per member, by the members' squared errors over all held-out pixels; the sum is 1.

    Raises:
        DataError: no pixel has a known target, or a map is not finite.
    """
    shares = as_shares(weights)
    errors = torch.zeros(len(shares), dtype=torch.float64)
    count = 0
    for maps, ideal, valid in aligned(images, task):
        errors += (maps - ideal)[:, valid].double().square().sum(1)
        count += int(valid.sum())
    require_known_pixels(count)
    worst = errors.max()
    precisions = shares / (errors / worst).clamp(min=_MOST_EXACT) if worst > 0 else shares.double()
    return {"precisions": (precisions / precisions.sum()).float()}
