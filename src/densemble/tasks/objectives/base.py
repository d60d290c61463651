"""Objective: a metric taken apart into what is summed over pictures and what is done with the sums."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Statistics = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Maps float32 ``(M, K, h, w)``, target of that size, fixations bool ``(h, w)`` -> finite float64 ``(M, S)``."""

SMALLEST = torch.finfo(torch.float32).eps
"""Where the logarithm of a probability is cut off, as in :mod:`densemble.metrics.reliability`."""

Value = Callable[[Tensor], Tensor]
"""Sums of statistics float64 ``(..., S)`` -> the metric ``(...)``, NaN where it is undefined."""


@dataclass(frozen=True)
class Objective:
    """A metric of M mixtures as S numbers per picture that may be summed over any set of pictures.

    The score of a set is ``value`` of the sum of its rows, so that folds, halves and bootstrap samples cost a matrix
    product. Equal to what the task's metrics say about the same maps.

    Attributes:
        name: of the metric.
        higher_is_better: whether more of it is better.
        statistics: what one picture adds, for all mixtures at once.
        value: the metric from sums.
    """

    name: str
    higher_is_better: bool
    statistics: Statistics
    value: Value

    def signed(self, sums: Tensor) -> Tensor:
        """:attr:`value` turned so that higher is better; minus infinity where it is undefined."""
        value = self.value(sums)
        return torch.nan_to_num(value if self.higher_is_better else -value, nan=-torch.inf)


def counted(values: Tensor, count: float) -> Tensor:
    """Totals ``(M,)`` beside what they are a total of, float64 ``(M, 2)``; for :func:`mean`."""
    return torch.stack([values.double(), torch.full_like(values, count, dtype=torch.float64)], dim=1)


def nothing(maps: Tensor) -> Tensor:
    """What a picture adds to a mean over pictures that it has no part in, ``(M, 2)``."""
    return torch.zeros(len(maps), 2, dtype=torch.float64)


def ratio(parts: Tensor, wholes: Tensor) -> Tensor:
    """Parts of wholes, NaN where the whole is 0."""
    return torch.where(wholes > 0, parts / wholes, torch.nan)


def mean(sums: Tensor) -> Tensor:
    """Total over count, ``(..., 2)`` -> ``(...)``."""
    return ratio(sums[..., 0], sums[..., 1])


def root_mean(sums: Tensor) -> Tensor:
    """Square root of :func:`mean`."""
    return mean(sums).sqrt()


def totals_per_row(place: Tensor, places: int, weights: Tensor | None = None) -> Tensor:
    """How often each place occurs in each row, or its total weight: ``(M, N)`` integer -> float64 ``(M, places)``."""
    rows = torch.arange(len(place))[:, None] * places
    flat = None if weights is None else weights.double().flatten()
    return torch.bincount((place + rows).flatten(), flat, minlength=len(place) * places).view(-1, places).double()
