"""What a metric family is made of: statistics of one image, which may be summed over any set of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
MetricValues = dict[str, "float | list[float | None] | None"]


class ScoredImage:
    """Maps of one image beside its target.

    Attributes:
        maps: activated, of M candidates, float ``(M, K, h, w)``.
        target: of that size, as the task has it.
        points: fixations, bool ``(h, w)``.
    """

    def __init__(self, maps: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        self.maps, self.target, self.points = maps, target, points
        self._computed: dict[Callable[..., Any], Any] = {}

    def once(self, compute: Callable[["ScoredImage"], T]) -> T:
        """``compute(self)``, computed at the first call: metrics of one family share intermediate results."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        result: T = self._computed[compute]
        return result


Statistics = Callable[[ScoredImage], Tensor]
"""One image -> finite float64 ``(M, S)`` where the maps are finite."""

Value = Callable[[Tensor], Tensor]
"""Sums of statistics float64 ``(..., S)`` -> the metric ``(...)``, NaN where it is undefined."""


@dataclass(frozen=True)
class Objective:
    """A metric of M candidates as S numbers per image that may be summed over any set of images.

    The score of a set is ``value`` of the sum of its rows, so that folds, halves and bootstrap samples cost a matrix
    product.

    Attributes:
        name: of the metric.
        higher_is_better: whether more of it is better.
        statistics: what one image adds, for all candidates at once.
        value: the metric from sums.
        streamed: finer statistics for the same ``value``, too large to be kept per image; default ``statistics``.
    """

    name: str
    higher_is_better: bool
    statistics: Statistics
    value: Value
    streamed: Statistics | None = None

    def signed(self, sums: Tensor) -> Tensor:
        """:attr:`value` turned so that higher is better; minus infinity where it is undefined."""
        value = self.value(sums)
        return torch.nan_to_num(value if self.higher_is_better else -value, nan=-torch.inf)


class Metric:
    """Streaming accumulator of one metric family: images go in one by one, only sums are kept.

    Attributes:
        objectives: the metrics by name.

    Args:
        objectives: the metrics; those with equal statistics share their sums.
        per_class: further ones, whose ``value`` is ``(..., K)``.
    """

    def __init__(self, *objectives: Objective, per_class: Sequence[Objective] = ()) -> None:
        self.objectives = {objective.name: objective for objective in objectives}
        self._rows = {row.name: row for row in (*objectives, *per_class)}
        self._statistics = {name: row.streamed or row.statistics for name, row in self._rows.items()}
        self._sums: dict[Statistics, Tensor] = {}

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one image.

        Args:
            prediction: activated map ``(K, H, W)``.
            target: ``(H, W)`` or ``(K, H, W)``, as the task has it.
            points: fixations, bool ``(H, W)``.
        """
        image = ScoredImage(prediction.cpu()[None], target.cpu(), points)
        # The last rows of a family need the most memory: their turn is before other results are kept.
        for statistics in reversed(dict.fromkeys(self._statistics.values())):
            row = statistics(image)[0]
            self._sums[statistics] = self._sums[statistics] + row if statistics in self._sums else row

    def sums(self, name: str) -> Tensor | None:
        """Summed statistics of a metric, ``(S,)``; ``None`` before the first image."""
        return self._sums.get(self._statistics[name])

    def compute(self) -> MetricValues:
        """The metrics over all images so far; ``None`` where one is undefined, NaN where a map was not finite."""
        return {name: self._compute(row) for name, row in self._rows.items()}

    def _compute(self, row: Objective) -> float | list[float | None] | None:
        sums = self.sums(row.name)
        if sums is None:
            return None
        value, finite = row.value(sums), bool(sums.isfinite().all())
        if value.ndim:
            return [None if one != one and finite else one for one in value.tolist()]
        return None if finite and value.isnan() else float(value)


def counted(values: Tensor, count: float) -> Tensor:
    """Totals ``(M,)`` beside what they are a total of, float64 ``(M, 2)``; for :func:`mean`."""
    return torch.stack([values.double(), torch.full_like(values, count, dtype=torch.float64)], dim=1)


def nothing(image: ScoredImage) -> Tensor:
    """Statistics of an image that has no part in a mean over images, ``(M, 2)``."""
    return torch.zeros(len(image.maps), 2, dtype=torch.float64)


def ratio(parts: Tensor, wholes: Tensor) -> Tensor:
    """Parts of wholes, NaN where the whole is 0."""
    return torch.where(wholes > 0, parts / wholes, torch.nan)


def mean(sums: Tensor) -> Tensor:
    """Total over count, ``(..., 2)`` -> ``(...)``."""
    return ratio(sums[..., 0], sums[..., 1])


def root_mean(sums: Tensor) -> Tensor:
    """Square root of :func:`mean`."""
    return mean(sums).sqrt()


def where(mask: Tensor) -> Tensor:
    """Numbers of the places in a bool tensor ``(N,)`` that are true, in order."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))  # nine times as fast as nonzero() on a CPU


def columns(values: Tensor, numbers: Tensor) -> Tensor:
    """Columns of ``values`` ``(M, N)`` by their numbers ``(n,)``, in order, each once; a view where those are all."""
    if len(numbers) == values.shape[1]:
        return values
    return values.gather(1, numbers.expand(len(values), -1))  # several times as fast as values[:, numbers] on a CPU


def totals_per_row(place: Tensor, places: int, weights: Tensor | None = None) -> Tensor:
    """How often each place occurs in each row, or its total weight: ``(M, N)`` integer -> float64 ``(M, places)``."""
    if len(place) > 1:
        place = place + torch.arange(len(place))[:, None] * places
    flat = None if weights is None else weights.double().flatten()
    return torch.bincount(place.flatten(), flat, minlength=len(place) * places).view(-1, places).double()
