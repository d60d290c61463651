"""Members weighted by how exact they are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densemble.ensemble.combine.fit_images import aligned, as_shares
from densemble.ensemble.combine.means import WeightedMean
from densemble.ensemble.combine.rule import Fitted, Images, learnt
from densemble.errors import DataError
from densemble.tasks import Task

_MOST_EXACT = 1e-6
"""No member counts as more than a million times as exact as the worst: one without error would be alone."""


class InverseVariance:
    """Mean with weights of 1 / squared error: the best there is where members' errors are independent.

    Args:
        fitted: ``precisions`` ``(M,)``.

    Raises:
        UsageError: they are absent or of another shape.
    """

    def __init__(self, fitted: Fitted) -> None:
        self._precisions = [float(precision) for precision in learnt(fitted, "precisions", None)]
        self._mean = WeightedMean()

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes the maps ``(B, K, h, w)`` of member ``index``."""
        self._mean.add(maps, self._precisions[index])

    def result(self) -> Tensor:
        """The mean ``(B, K, h, w)``."""
        return self._mean.result()


def fit_inverse_variance(images: Images, weights: Sequence[float], task: Task) -> dict[str, Tensor]:
    """``weights``, one per member, divided by the members' squared errors over all held-out pixels, summing to 1.

    Raises:
        DataError: no pixel has a known target, or a map is not finite.
    """
    shares = as_shares(weights)
    errors = torch.zeros(len(shares), dtype=torch.float64)
    count = 0
    for maps, wanted, valid in aligned(images, task):
        errors += (maps - wanted)[:, valid].double().square().sum(1)
        count += int(valid.sum())
    if not count:
        raise DataError("the held-out images have no pixel with a known target; nothing can be fitted to them")
    worst = errors.max()
    precisions = shares / (errors / worst).clamp(min=_MOST_EXACT) if worst > 0 else shares.double()
    return {"precisions": (precisions / precisions.sum()).float()}
