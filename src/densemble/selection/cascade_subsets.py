"""Statistics and uncertainty of subsets of members, which all policies of a cascade are computed from.

For each image, a policy depends on the set of members that have run, not on their order. So every subset is measured
once on all images; orders, thresholds, halves and bootstrap samples are sums of these measurements.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densemble.ensemble.cascade import UNCERTAINTY_MEASURES, uncertainty_measures_for
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import rule_row
from densemble.ensemble.uncertainty import entropy
from densemble.evaluation.scores import Target
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure
from densemble.selection.held_out_predictions import HeldOut
from densemble.shapes import size_of
from densemble.tasks import TargetKind

MAX_PIXELS = 4096
"""Maximum number of pixels per image that subsets are compared on, evenly spaced."""
_VALUES_AT_ONCE = 2**23

Subset = frozenset[int]


@dataclass(frozen=True)
class SubsetResult:
    """Measurements of a subset of members on all N images.

    Attributes:
        statistics: ``(N, S)``.
        uncertainty: ``(N,)`` for each measure of uncertainty, by name.
    """

    statistics: Tensor
    uncertainty: dict[str, Tensor]


class SubsetResults:
    """Measurements of subsets of members on all images; each subset is measured once, on its first use.

    Args:
        held: predictions of the members, tempered.
        combination: combination of the members.
        objective: objective of the statistics.
        costs: cost of each member for one image, > 0, in any unit.
        max_pixels: maximum number of pixels per image; ``None``: all.
    """

    def __init__(
        self,
        held: HeldOut,
        combination: Combination,
        objective: Objective,
        costs: Sequence[float],
        max_pixels: int | None = MAX_PIXELS,
    ) -> None:
        self.held, self.objective = held, objective
        self._combination, self._plain = combination, replace(combination, calibration=None)
        total = math.fsum(costs)
        self.shares = {name: cost / total for name, cost in zip(held.names, costs, strict=True)}
        self._max_pixels = max_pixels
        self.measures = uncertainty_measures_for(held.task)
        self._weights = torch.tensor([combination.weights[name] for name in held.names], dtype=torch.float64)
        self._known: dict[Subset, SubsetResult] = {}
        self._single: dict[int, Tensor] = {}

    def full(self) -> Tensor:
        """Return the statistics of all members together, ``(N, S)``."""
        return self.of([frozenset(range(len(self.held.names)))])[0].statistics

    def of(self, subsets: Sequence[Subset]) -> list[SubsetResult]:
        """Return the result of each subset; new subsets are measured in one pass over the images."""
        new = [subset for subset in dict.fromkeys(subsets) if subset not in self._known]
        if new:
            kind = self.held.task.target_kind
            images = (subsampled(*image, kind, self._max_pixels) for image in self.held)
            rows = [list(self._image(new, number, *image)) for number, image in enumerate(images)]
            statistics = torch.stack([torch.cat([each for each, _ in row]) for row in rows], dim=1)
            uncertainty = torch.stack([torch.cat([each for _, each in row]) for row in rows], dim=1)
            for subset, subset_statistics, subset_uncertainty in zip(new, statistics, uncertainty, strict=True):
                by_name = dict(zip(self.measures, subset_uncertainty.unbind(-1), strict=True))
                self._known[subset] = SubsetResult(subset_statistics, by_name)
        return [self._known[subset] for subset in subsets]

    def measure_prefixes(self, orders: Iterable[Sequence[str]]) -> None:
        """Measure all prefixes of the orders in one pass over the images."""
        self.of([subset for members in orders for subset in self._prefixes(members)])

    def prefixes(self, names: Sequence[str]) -> list[SubsetResult]:
        """Return the results of the first 1, 2, ... members of an order."""
        return self.of(self._prefixes(names))

    def _prefixes(self, names: Sequence[str]) -> list[Subset]:
        indices = [self.held.names.index(name) for name in names]
        return [frozenset(indices[:length]) for length in range(1, len(indices) + 1)]

    def signed(self, subsets: Sequence[Subset], images: Sequence[int]) -> list[float]:
        """Return the score of each subset on some of the images, higher is better."""
        rows = torch.stack([result.statistics[images].sum(0) for result in self.of(subsets)])
        scores: list[float] = self.objective.signed(rows).tolist()
        return scores

    def _image(
        self, subsets: Sequence[Subset], number: int, maps: Tensor, target: Target
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield statistics ``(R, S)`` and uncertainty ``(R, measures)`` of one image for a few subsets at a time."""
        if number not in self._single:
            self._single[number] = _mean(self._uncertainty_map(maps))
        shares = torch.stack([self._shares_of(subset) for subset in subsets])
        batch = max(_VALUES_AT_ONCE // maps[0].numel(), 1)
        for start in range(0, len(subsets), batch):
            some, some_shares = subsets[start : start + batch], shares[start : start + batch]
            means = torch.tensordot(some_shares.float(), maps, 1)
            combined = self._combined(some, maps, means)
            statistics = measure(self._combination.calibrate(combined), target, self.held.task, self.objective)
            uncertainty = self._uncertainty(some_shares @ self._single[number], means, combined)
            counts = torch.tensor([len(subset) for subset in some])
            for column, name in enumerate(self.measures):
                uncertainty[counts < UNCERTAINTY_MEASURES[name].members, column] = math.inf
            yield statistics, uncertainty

    def _uncertainty_map(self, maps: Tensor) -> Tensor:
        distribution = self.held.task.distribution
        return maps.square() if distribution == "none" else entropy(maps, distribution)

    def _uncertainty(self, expected: Tensor, means: Tensor, combined: Tensor) -> Tensor:
        """Return the image mean of each measure, in the order of ``uncertainty_measures_for``: ``(R, measures)``.

        Args:
            expected: weighted mean over the members of their mean ``_uncertainty_map``, float64 ``(R,)``.
            means: weighted means ``(R, K, h, w)``.
            combined: maps combined by the rule, ``(R, K, h, w)``.
        """
        of_means = _mean(self._uncertainty_map(means))
        if self.held.task.distribution == "none":
            return (expected - of_means).clamp(min=0)[:, None]
        of_combined = of_means if combined is means else _mean(self._uncertainty_map(combined))
        return torch.stack([of_combined, (of_means - expected).clamp(min=0)], dim=1)

    def _shares_of(self, subset: Subset) -> Tensor:
        shares = torch.zeros_like(self._weights)
        shares[sorted(subset)] = self._weights[sorted(subset)]
        return shares / shares.sum()

    def _combined(self, subsets: Sequence[Subset], maps: Tensor, means: Tensor) -> Tensor:
        if rule_row(self._plain.rule).averages:
            return means
        names = self.held.names
        streams = ([(names[member], maps[member][None]) for member in sorted(subset)] for subset in subsets)
        return torch.cat([self._plain.combine(stream) for stream in streams])


def subsampled(
    maps: Tensor, target: Target, kind: TargetKind, max_pixels: int | None = MAX_PIXELS
) -> tuple[Tensor, Target]:
    """Subsample maps ``(M, K, h, w)`` and target: every n-th row and column, so that about ``max_pixels`` remain.

    Nothing changes if the metrics of the target kind are no sums over pixels, or if target and maps differ in size.
    """
    values, points = target
    size = size_of(maps)
    pixelwise = kind in ("labels", "masks", "values") and values.shape[-2:] == size
    if max_pixels is None or not pixelwise or size[0] * size[1] <= max_pixels:
        return maps, target
    step = math.ceil(math.sqrt(size[0] * size[1] / max_pixels))
    return maps[..., ::step, ::step].contiguous(), (values[..., ::step, ::step].contiguous(), points)


def _mean(maps: Tensor) -> Tensor:
    """Mean of each map, ``(R, ...)`` -> float64 ``(R,)``."""
    return maps.double().flatten(1).mean(1)
