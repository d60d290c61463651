"""Sets of members measured on kept predictions, which all policies of a cascade are sums of.

All that a policy needs to know of an image depends on which members have run, not on their order. So every set of
members is measured once on all images; orders, thresholds, halves and bootstrap samples are sums of those rows.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from densemble.ensemble.cascade import UNSURENESS, measures_for
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE
from densemble.ensemble.uncertainty import entropy
from densemble.evaluation.scores import Target
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure
from densemble.shapes import size_of
from densemble.tasks import Distribution, TargetKind, Task

MOST_PIXELS = 4096
"""Of each image that sets of members are compared on, evenly spaced: they are compared often."""
_VALUES_AT_ONCE = 2**23

Subset = frozenset[int]


class Predictions(Protocol):
    """Activated maps of M members on N images, and what is true of them, such as :class:`HeldOut`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""

    @property
    def task(self) -> Task:
        """What the maps mean."""

    def __len__(self) -> int:
        """N."""

    def __iter__(self) -> Iterator[tuple[Tensor, Target]]:
        """Every image's maps ``(M, K, h, w)`` and truth, one after the other."""


@dataclass(frozen=True)
class _Measured:
    """A set of members on all N images: statistics ``(N, S)``, and ``(N,)`` for each measure of unsureness."""

    statistics: Tensor
    unsureness: dict[str, Tensor]


class Stages:
    """Sets of members on all images, each measured once, when it is first asked for.

    Args:
        held: the ensemble's members, tempered.
        combination: of the members.
        objective: that is scored by.
        costs: > 0, of each member for one image; in any unit.
        most_pixels: of each image that are looked at; ``None``: all.
    """

    def __init__(
        self,
        held: Predictions,
        combination: Combination,
        objective: Objective,
        costs: Sequence[float],
        most_pixels: int | None = MOST_PIXELS,
    ) -> None:
        self.held, self.objective = held, objective
        self._combination, self._plain = combination, replace(combination, calibration=None)
        total = math.fsum(costs)
        self.shares = {name: own / total for name, own in zip(held.names, costs, strict=True)}
        self._most_pixels = most_pixels
        self.measures = measures_for(held.task)
        self._weights = torch.tensor([combination.weights[name] for name in held.names], dtype=torch.float64)
        self._known: dict[Subset, _Measured] = {}
        self._members: dict[int, _MemberFacts] = {}

    def full(self) -> Tensor:
        """Statistics of all members, ``(N, S)``."""
        return self.of([frozenset(range(len(self.held.names)))])[0].statistics

    def of(self, subsets: Sequence[Subset]) -> list[_Measured]:
        """What was measured of each set; those that are new take one pass over the images."""
        new = [subset for subset in dict.fromkeys(subsets) if subset not in self._known]
        if new:
            kind = self.held.task.target_kind
            thin = (thinned(*one, kind, self._most_pixels) for one in self.held)
            rows = [list(self._image(new, number, *one)) for number, one in enumerate(thin)]
            statistics = torch.stack([torch.cat([own for own, _ in row]) for row in rows], dim=1)
            unsure = torch.stack([torch.cat([own for _, own in row]) for row in rows], dim=1)
            for place, subset in enumerate(new):
                by_name = dict(zip(self.measures, unsure[place].unbind(-1), strict=True))
                self._known[subset] = _Measured(statistics[place], by_name)
        return [self._known[subset] for subset in subsets]

    def all_of(self, orders: Iterable[Sequence[str]]) -> None:
        """Measures all that policies of these members need, in one pass over the images."""
        places = {name: place for place, name in enumerate(self.held.names)}
        prefixes = [members[:count] for members in orders for count in range(1, len(members) + 1)]
        self.of([frozenset(places[name] for name in members) for members in prefixes])

    def prefixes(self, names: Sequence[str]) -> list[_Measured]:
        """After 1, 2, ... of the members."""
        places = [self.held.names.index(name) for name in names]
        return self.of([frozenset(places[:stage]) for stage in range(1, len(places) + 1)])

    def signed(self, subsets: Sequence[Subset], images: Sequence[int]) -> list[float]:
        """Scores on some of the images, higher is better."""
        rows = torch.stack([one.statistics[images].sum(0) for one in self.of(subsets)])
        found: list[float] = self.objective.signed(rows).tolist()
        return found

    def _image(
        self, subsets: Sequence[Subset], number: int, maps: Tensor, truth: Target
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Statistics ``(R, S)`` and unsureness ``(R, measures)`` of some sets at a time, of one image."""
        if number not in self._members:
            self._members[number] = _MemberFacts(maps, self.held.task.distribution)
        own = self._members[number]
        shares = torch.stack([self._share(subset) for subset in subsets])
        several = max(_VALUES_AT_ONCE // maps[0].numel(), 1)
        for start in range(0, len(subsets), several):
            some = shares[start : start + several]
            means = torch.tensordot(some.float(), maps, 1)
            combined = self._combined(subsets[start : start + several], maps, means)
            statistics = measure(self._combination.calibrate(combined), truth, self.held.task, self.objective)
            unsure = own.unsureness(some, means, combined)
            few = torch.tensor([len(subset) for subset in subsets[start : start + several]])
            for place, name in enumerate(self.measures):
                unsure[few < UNSURENESS[name].members, place] = math.inf
            yield statistics, unsure

    def _share(self, subset: Subset) -> Tensor:
        own = torch.zeros_like(self._weights)
        own[sorted(subset)] = self._weights[sorted(subset)]
        return own / own.sum()

    def _combined(self, subsets: Sequence[Subset], maps: Tensor, means: Tensor) -> Tensor:
        if COMBINE[self._plain.rule].averages:
            return means
        names = self.held.names
        streams = ([(names[place], maps[place][None]) for place in sorted(subset)] for subset in subsets)
        return torch.cat([self._plain.combine(stream) for stream in streams])


def thinned(maps: Tensor, truth: Target, kind: TargetKind, most: int | None = MOST_PIXELS) -> tuple[Tensor, Target]:
    """Every so manyth pixel of maps ``(M, K, h, w)`` and truth, where pixels are scored one by one and are many."""
    target, points = truth
    size = size_of(maps)
    one_by_one = kind in ("labels", "masks", "values") and target.shape[-2:] == size
    if most is None or not one_by_one or size[0] * size[1] <= most:
        return maps, truth
    step = math.ceil(math.sqrt(size[0] * size[1] / most))
    return maps[..., ::step, ::step].contiguous(), (target[..., ::step, ::step].contiguous(), points)


class _MemberFacts:
    """What the unsureness of any set needs to know of an image's members, so that it is worked out once."""

    def __init__(self, maps: Tensor, distribution: Distribution) -> None:
        self._distribution = distribution
        values = maps.square() if self._distribution == "none" else entropy(maps, self._distribution)
        self._own = _mean(values)

    def unsureness(self, shares: Tensor, means: Tensor, combined: Tensor) -> Tensor:
        """An image's mean of the task's rows of ``UNSURENESS``, in the order of ``measures_for``, ``(R, rows)``.

        Args:
            shares: float64 ``(R, M)``.
            means: weighted means ``(R, K, h, w)``.
            combined: by the rule, ``(R, K, h, w)``.
        """
        expected = shares @ self._own
        if self._distribution == "none":
            return (expected - _mean(means.square())).clamp(min=0)[:, None]
        of_means = _mean(entropy(means, self._distribution))
        own = of_means if combined is means else _mean(entropy(combined, self._distribution))
        return torch.stack([own, (of_means - expected).clamp(min=0)], dim=1)


def _mean(maps: Tensor) -> Tensor:
    """Of each image, ``(R, ...)`` -> float64 ``(R,)``."""
    return maps.double().flatten(1).mean(1)
