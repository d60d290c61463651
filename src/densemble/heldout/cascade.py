"""Fitting cascades on kept predictions: which order, which threshold, how many members, and what that keeps.

All that a policy needs to know of a picture depends on which members have run, not on their order. So every set of
members is measured once on all pictures; orders, thresholds, halves and bootstrap samples are sums of those rows.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from densemble.ensemble.calibrate import Calibration, VarianceScaling
from densemble.ensemble.cascade import UNSURENESS, Cascade, Check, Policy, cumulated, kept_share, measures_for
from densemble.ensemble.combine import COMBINE, Fitted, make_rule
from densemble.ensemble.uncertainty import entropy
from densemble.errors import DataError, UsageError
from densemble.heldout.gain import resample
from densemble.heldout.predictions import HeldOut, Truth
from densemble.heldout.scores import measure
from densemble.tasks import TargetKind
from densemble.tasks.objectives import Objective

CONFIDENCE = 0.95
RESAMPLES = 500
BLOCKS = 10
"""Runs of neighbouring pictures that are drawn as a whole: frames of a film say less than as many single pictures."""
STEP = 5e-4
"""Share of the full score that a dearer policy has to gain."""
THRESHOLDS = 16
"""Thresholds that are tried at most with each order and number of members."""
FEWEST = 4
"""Pictures that fitting and checking need."""
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
KEEPS = (0.98, 0.99, 0.995, 1.0)
"""What is checked on pictures that were not fitted on."""
MOST_PIXELS = 4096
"""Of each picture that sets of members are compared on, evenly spaced: they are compared often."""
_VALUES_AT_ONCE = 2**23

Subset = frozenset[int]


@dataclass(frozen=True)
class Mixed:
    """How members are joined.

    Attributes:
        weights: one positive number per member.
        rule: row of ``COMBINE``.
        fitted: what the rule learnt of all members.
        calibration: of the ensemble.
    """

    weights: tuple[float, ...]
    rule: str = "mean"
    fitted: Fitted | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class _Measured:
    """A set of members on all N pictures: statistics ``(N, S)``, and ``(N,)`` for each measure of unsureness."""

    statistics: Tensor
    unsureness: dict[str, Tensor]


def why_no_cascade(members: int, rule: str) -> str | None:
    """Why an ensemble cannot be run as a cascade; ``None``: it can."""
    if members < 2:
        return "an ensemble of one member has nothing to stop before"
    if COMBINE[rule].needs_all:
        return f"the rule '{rule}' was fitted for all members and says nothing of a few"
    return None


def fit_cascade(held: HeldOut, mixed: Mixed, objective: Objective, milliseconds: Sequence[float]) -> Cascade:
    """Policies that no other of the tried ones beats at its cost, and what they are worth on unseen pictures.

    Orders that are tried: by the members' own score, by forward selection, by gain per millisecond, cheapest first;
    with each, every largest number of members, and thresholds between the pictures' own unsureness.

    Args:
        held: the ensemble's members on N pictures, tempered.
        mixed: how they are joined.
        objective: that is scored by.
        milliseconds: > 0, of each member for one picture.

    Raises:
        UsageError: an ensemble that cannot be run as a cascade; see :func:`why_no_cascade`.
        DataError: fewer than 4 pictures, or the objective is undefined for them.
    """
    reason = why_no_cascade(len(held.names), mixed.rule)
    if reason is not None:
        raise UsageError(f"no cascade: {reason}")
    if len(held) < FEWEST:
        raise DataError(f"{len(held)} held-out pictures are too few to fit a cascade to; keep at least {FEWEST}")
    stages = _Stages(held, mixed, objective, milliseconds)
    every = list(range(len(held)))
    full = float(objective.value(stages.full().sum(0)))
    if not math.isfinite(full):
        raise DataError(f"{objective.name} is undefined for the held-out pictures; no cascade can be fitted by it")
    # Contiguous halves: neighbours, such as frames of a film, stay together.
    half = len(held) // 2
    return Cascade(
        metric=objective.name,
        higher_is_better=objective.higher_is_better,
        pictures=len(held),
        full=full,
        shares=stages.shares,
        policies=_fit(stages, every),
        checks=tuple(_checks(stages, every[:half], every[half:])),
    )


class _Stages:
    """Sets of members on all pictures, each measured once, when it is first asked for."""

    def __init__(self, held: HeldOut, mixed: Mixed, objective: Objective, milliseconds: Sequence[float]) -> None:
        self.held, self.mixed, self.objective = held, mixed, objective
        total = math.fsum(milliseconds)
        self.shares = {name: own / total for name, own in zip(held.names, milliseconds, strict=True)}
        self.measures = measures_for(held.task)
        self._weights = torch.tensor(mixed.weights, dtype=torch.float64)
        self._known: dict[Subset, _Measured] = {}
        self._members: dict[int, _MemberFacts] = {}

    def full(self) -> Tensor:
        """Statistics of all members, ``(N, S)``."""
        return self.of([frozenset(range(len(self.held.names)))])[0].statistics

    def of(self, subsets: Sequence[Subset]) -> list[_Measured]:
        """What was measured of each set; those that are new take one pass over the pictures."""
        new = [subset for subset in dict.fromkeys(subsets) if subset not in self._known]
        if new:
            kind = self.held.task.target_kind
            rows = [list(self._picture(new, number, *thinned(*one, kind))) for number, one in enumerate(self.held)]
            statistics = torch.stack([torch.cat([own for own, _ in row]) for row in rows], dim=1)
            unsure = torch.stack([torch.cat([own for _, own in row]) for row in rows], dim=1)
            for place, subset in enumerate(new):
                by_name = dict(zip(self.measures, unsure[place].unbind(-1), strict=True))
                self._known[subset] = _Measured(statistics[place], by_name)
        return [self._known[subset] for subset in subsets]

    def prefixes(self, names: Sequence[str]) -> list[_Measured]:
        """After 1, 2, ... of the members."""
        places = [self.held.names.index(name) for name in names]
        return self.of([frozenset(places[:stage]) for stage in range(1, len(places) + 1)])

    def signed(self, subsets: Sequence[Subset], pictures: Sequence[int]) -> list[float]:
        """Scores on some of the pictures, higher is better."""
        rows = torch.stack([one.statistics[pictures].sum(0) for one in self.of(subsets)])
        found: list[float] = self.objective.signed(rows).tolist()
        return found

    def _picture(
        self, subsets: Sequence[Subset], number: int, maps: Tensor, truth: Truth
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Statistics ``(R, S)`` and unsureness ``(R, measures)`` of some sets at a time, of one picture."""
        if number not in self._members:
            self._members[number] = _MemberFacts(maps, self.held)
        own = self._members[number]
        shares = torch.stack([self._share(subset) for subset in subsets])
        several = max(_VALUES_AT_ONCE // maps[0].numel(), 1)
        for start in range(0, len(subsets), several):
            some = shares[start : start + several]
            means = torch.tensordot(some.float(), maps, 1)
            combined = self._combined(subsets[start : start + several], maps, means)
            calibration = self.mixed.calibration
            plain = calibration is None or isinstance(calibration, VarianceScaling)
            served = combined if plain or calibration is None else calibration.apply(combined)
            statistics = measure(served, truth, self.held.task, self.objective)
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
        if self.mixed.rule == "mean":
            return means
        found = []
        for subset in subsets:
            rule = make_rule(self.mixed.rule, self.held.task, self.mixed.fitted)
            for place in sorted(subset):
                rule.add(maps[place][None], self.mixed.weights[place], place)
            found.append(rule.result())
        return torch.cat(found)


def thinned(maps: Tensor, truth: Truth, kind: TargetKind) -> tuple[Tensor, Truth]:
    """Every so manyth pixel of maps ``(M, K, h, w)`` and truth, where pixels are scored one by one and are many."""
    target, points = truth
    size = (int(maps.shape[-2]), int(maps.shape[-1]))
    if kind not in ("labels", "masks", "values") or target.shape[-2:] != size or size[0] * size[1] <= MOST_PIXELS:
        return maps, truth
    step = math.ceil(math.sqrt(size[0] * size[1] / MOST_PIXELS))
    return maps[..., ::step, ::step].contiguous(), (target[..., ::step, ::step].contiguous(), points)


class _MemberFacts:
    """What the unsureness of any set needs to know of a picture's members, so that it is worked out once."""

    def __init__(self, maps: Tensor, held: HeldOut) -> None:
        self._distribution = held.task.distribution
        values = maps.square() if self._distribution == "none" else entropy(maps, self._distribution)
        self._own = _mean(values)

    def unsureness(self, shares: Tensor, means: Tensor, combined: Tensor) -> Tensor:
        """A picture's mean of the task's rows of ``UNSURENESS``, in the order of ``measures_for``, ``(R, rows)``.

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
    """Of each picture, ``(R, ...)`` -> float64 ``(R,)``."""
    return maps.double().flatten(1).mean(1)


# --- orders ---------------------------------------------------------------------------------------------------------


def _orders(stages: _Stages, pictures: Sequence[int]) -> list[tuple[str, ...]]:
    names = stages.held.names
    costs = [stages.shares[name] for name in names]
    alone = stages.signed([frozenset([number]) for number in range(len(names))], pictures)
    by_score = sorted(range(len(names)), key=lambda number: -alone[number])
    by_cost = sorted(range(len(names)), key=lambda number: costs[number])
    worst = min(alone)

    def per_cost(scores: Mapping[int, float], last: float | None) -> int:
        gains = {number: score - (worst if last is None else last) for number, score in scores.items()}
        if max(gains.values()) <= 0:  # divided by its cost, the dearest would seem to do the least harm
            return max(gains, key=lambda number: gains[number])
        return max(gains, key=lambda number: gains[number] / costs[number])

    def most(scores: Mapping[int, float], last: float | None) -> int:
        return max(scores, key=lambda number: scores[number])

    found = [by_score, by_cost, _forward(stages, pictures, most), _forward(stages, pictures, per_cost)]
    return list(dict.fromkeys(tuple(names[number] for number in order) for order in found))


def _forward(
    stages: _Stages, pictures: Sequence[int], choose: Callable[[Mapping[int, float], float | None], int]
) -> list[int]:
    """All members, each time the one that is chosen by the score with it and the score so far."""
    taken: list[int] = []
    last: float | None = None
    left = set(range(len(stages.held.names)))
    while left:
        able = sorted(left)
        scores = stages.signed([frozenset([*taken, number]) for number in able], pictures)
        by_number = dict(zip(able, scores, strict=True))
        number = choose(by_number, last)
        taken.append(number)
        left.remove(number)
        last = by_number[number]
    return taken


# --- policies -------------------------------------------------------------------------------------------------------


def _follow(stages: _Stages, members: Sequence[str], by: str, threshold: float) -> Tensor:
    """The last stage of each picture, from 0, ``(N,)``."""
    unsure = torch.stack([one.unsureness[by] for one in stages.prefixes(members)])
    sure = unsure < threshold
    sure[-1] = True
    return sure.int().argmax(0)


def _rows(stages: _Stages, members: Sequence[str], last: Tensor) -> Tensor:
    """Statistics of each picture at its last stage, ``(N, S)``."""
    every = torch.stack([one.statistics for one in stages.prefixes(members)])
    return every[last, torch.arange(len(last))]


def _costs(stages: _Stages, members: Sequence[str], last: Tensor) -> Tensor:
    return torch.tensor(cumulated(tuple(members), stages.shares), dtype=torch.float64)[last]


def _tried(stages: _Stages, pictures: Sequence[int]) -> list[tuple[tuple[str, ...], str, float]]:
    """(members, measure, threshold); a threshold of 0 is plain truncation."""
    found: list[tuple[tuple[str, ...], str, float]] = []
    for order in _orders(stages, pictures):
        for length in range(1, len(order) + 1):
            members = order[:length]
            found.append((members, stages.measures[0], 0.0))
            before = stages.prefixes(members)[:-1]
            for name in stages.measures:
                able = before[UNSURENESS[name].members - 1 :]
                values = [value for one in able for value in one.unsureness[name][pictures].tolist()]
                found += [(members, name, threshold) for threshold in _thresholds(values)]
    return list(dict.fromkeys(found))


def _thresholds(values: Sequence[float]) -> list[float]:
    """Middles between neighbours among the values, at most ``THRESHOLDS``, evenly spaced by rank."""
    known = sorted(set(values))
    middles = [(low + high) / 2 for low, high in pairwise(known)]
    several = min(len(middles), THRESHOLDS)
    return [middles[(2 * number + 1) * len(middles) // (2 * several)] for number in range(several)]


def _fit(stages: _Stages, pictures: Sequence[int]) -> tuple[Policy, ...]:
    """Policies that no other beats in score and in what it surely keeps at its cost; the last one runs everything."""
    objective = stages.objective
    sign = 1 if objective.higher_is_better else -1
    samples = torch.cat([torch.ones(1, len(pictures), dtype=torch.float64), *_samples(len(pictures))])
    whole = objective.value(samples @ stages.full()[pictures])

    def worth(tried: tuple[tuple[str, ...], str, float]) -> Policy:
        last = _follow(stages, *tried)
        own = _rows(stages, tried[0], last)[pictures]
        values = objective.value(samples @ own)
        kept = kept_share(values, whole, objective.higher_is_better)
        low = torch.nanquantile(kept[1:].view(-1, RESAMPLES), 1 - CONFIDENCE, dim=1).min()
        cost = float(_costs(stages, tried[0], last)[pictures].mean())
        return Policy(*tried, cost, float(values[0]), _number(kept[0]), _number(low))

    found = sorted(
        (worth(tried) for tried in _tried(stages, pictures)), key=lambda policy: (policy.cost, -sign * policy.score)
    )
    everything = next(one for one in found if len(one.members) == len(stages.held.names) and one.threshold == 0)
    front: list[Policy] = []
    top, surest = -math.inf, -math.inf
    for policy in found:
        signed, low = sign * policy.score, -math.inf if policy.kept_low is None else policy.kept_low
        if policy is not everything and (signed > top + STEP * abs(everything.score) or low > surest + STEP):
            front.append(policy)
            top, surest = max(top, signed), max(surest, low)
    return (*front, everything)


def _samples(pictures: int) -> tuple[Tensor, Tensor]:
    """How often each picture is drawn: single pictures, and runs of neighbours (Kuensch 1989); ``(RESAMPLES, N)``."""
    blocks = min(BLOCKS, pictures)
    return resample(pictures, RESAMPLES), resample(blocks, RESAMPLES)[:, torch.arange(pictures) * blocks // pictures]


def _number(value: Tensor) -> float | None:
    return float(value) if math.isfinite(value) else None


def _checks(stages: _Stages, first: list[int], second: list[int]) -> Iterable[Check]:
    """Policies fitted on either half, on the other one."""
    halves = [(_cascade_of(stages, seen), unseen) for seen, unseen in ((first, second), (second, first))]
    asked: list[tuple[Literal["budget", "keep"], float]] = [
        *(("budget", share) for share in BUDGETS),
        *(("keep", share) for share in KEEPS),
    ]
    objective, full = stages.objective, stages.full()
    for kind, share in asked:
        rows, costs = [], []
        try:
            for cascade, unseen in halves:
                policy = cascade.for_budget(share) if kind == "budget" else cascade.for_keep(share)
                last = _follow(stages, policy.members, policy.measure, policy.threshold)
                rows.append(_rows(stages, policy.members, last)[unseen])
                costs.append(_costs(stages, policy.members, last)[unseen])
        except UsageError:  # less than the cheapest member costs, or nothing to keep a share of
            continue
        score = objective.value(torch.cat(rows).sum(0))
        whole = objective.value(full[[*first, *second]].sum(0))
        kept = _number(kept_share(score, whole, objective.higher_is_better))
        yield Check(kind, share, float(torch.cat(costs).mean()), kept)


def _cascade_of(stages: _Stages, pictures: Sequence[int]) -> Cascade:
    objective = stages.objective
    full = float(objective.value(stages.full()[pictures].sum(0)))
    policies = _fit(stages, pictures)
    return Cascade(objective.name, objective.higher_is_better, len(pictures), full, stages.shares, policies, checks=())
