"""Fitting cascades on kept predictions: which order, which threshold, how many members, and what that keeps."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from densemble.ensemble.cascade import UNSURENESS, Cascade, Check, Policy, cumulated, kept_share
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE
from densemble.errors import DataError, UsageError
from densemble.evaluation.bootstrap import resample
from densemble.metrics import Objective
from densemble.selection.cascade_subsets import Predictions, Stages
from densemble.selection.held_out_predictions import HeldOut

CONFIDENCE = 0.95
RESAMPLES = 500
BLOCKS = 10
"""Runs of neighbouring images that are drawn as a whole: frames of a film say less than as many single images."""
STEP = 5e-4
"""Share of the full score that a dearer policy has to gain."""
LEAST_KEPT = 0.75
"""Policies that keep less of the full score are left out, where others are there."""
THRESHOLDS = 16
"""Thresholds that are tried at most with each order and number of members."""
FEWEST = 4
"""Images that fitting and checking need."""
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
KEEPS = (0.98, 0.99, 0.995, 1.0)
"""What is checked on images that were not fitted on."""

Tried = tuple[tuple[str, ...], str, float]
"""(members, measure, threshold); a threshold of 0 is plain truncation."""


def why_no_cascade(members: int, rule: str) -> str | None:
    """Why an ensemble cannot be run as a cascade; ``None``: it can."""
    if members < 2:
        return "an ensemble of one member has nothing to stop before"
    if COMBINE[rule].needs_all:
        return f"the rule '{rule}' was fitted for all members and says nothing of a few"
    return None


def fit_cascade(
    held: HeldOut,
    combination: Combination,
    objective: Objective,
    milliseconds: Sequence[float],
    served: Predictions | None = None,
) -> Cascade:
    """Policies that no other of the tried ones beats at its cost, and what they are worth on unseen images.

    Orders that are tried: by the members' own score, by forward selection, by gain per millisecond, cheapest first;
    with each, every largest number of members, and thresholds between the images' own unsureness.

    Kept predictions are small. Policies are found on them, for they are compared by the thousand; but thin things are
    lost on small maps, and those are what a whole ensemble is better at. So what was found is best measured once more
    on the maps that are served.

    Args:
        held: the ensemble's members on N images, tempered.
        combination: of the members.
        objective: that is scored by.
        milliseconds: > 0, of each member for one image.
        served: the same members on some of the same images, evenly spaced; read once. Default: ``held``.

    Raises:
        UsageError: an ensemble that cannot be run as a cascade; see :func:`why_no_cascade`.
        DataError: fewer than 4 images, or the objective is undefined for them.
    """
    reason = why_no_cascade(len(held.names), combination.rule)
    if reason is not None:
        raise UsageError(f"no cascade: {reason}")
    stages = Stages(held, combination, objective, milliseconds)
    every, halves = _parts(stages)
    candidates = {part: _tried(stages, part) for part in (every, *halves)}
    if served is not None:
        found = {part: _fit(stages, part, tried) for part, tried in candidates.items()}
        stages = Stages(served, combination, objective, milliseconds, most_pixels=None)
        now, now_halves = _parts(stages)
        candidates = {
            part: [(policy.members, policy.measure, policy.threshold) for policy in found[own]]
            for part, own in zip((now, *now_halves), (every, *halves), strict=True)
        }
        every, halves = now, now_halves
        stages.all_of({members for tried in candidates.values() for members, _, _ in tried})
    return Cascade(
        metric=objective.name,
        higher_is_better=objective.higher_is_better,
        images=len(every),
        full=_full(stages, every),
        shares=stages.shares,
        policies=_fit(stages, every, candidates[every]),
        checks=tuple(_checks(stages, halves, [candidates[half] for half in halves])),
    )


def _parts(stages: Stages) -> tuple[range, tuple[range, range]]:
    """All images, and contiguous halves of them: neighbours, such as frames of a film, stay together.

    Raises:
        DataError: too few, or nothing to score them by.
    """
    images, objective = len(stages.held), stages.objective
    if images < FEWEST:
        raise DataError(f"{images} held-out images are too few to fit a cascade to; keep at least {FEWEST}")
    every = range(images)
    if not math.isfinite(_full(stages, every)):
        raise DataError(f"{objective.name} is undefined for the held-out images; no cascade can be fitted by it")
    return every, (range(images // 2), range(images // 2, images))


def _full(stages: Stages, images: Sequence[int]) -> float:
    return float(stages.objective.value(stages.full()[list(images)].sum(0)))


# --- orders ---------------------------------------------------------------------------------------------------------


def _orders(stages: Stages, images: Sequence[int]) -> list[tuple[str, ...]]:
    names = stages.held.names
    costs = [stages.shares[name] for name in names]
    alone = stages.signed([frozenset([number]) for number in range(len(names))], images)
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

    found = [by_score, by_cost, _forward(stages, images, most), _forward(stages, images, per_cost)]
    return list(dict.fromkeys(tuple(names[number] for number in order) for order in found))


def _forward(
    stages: Stages, images: Sequence[int], choose: Callable[[Mapping[int, float], float | None], int]
) -> list[int]:
    """All members, each time the one that is chosen by the score with it and the score so far."""
    taken: list[int] = []
    last: float | None = None
    left = set(range(len(stages.held.names)))
    while left:
        able = sorted(left)
        scores = stages.signed([frozenset([*taken, number]) for number in able], images)
        by_number = dict(zip(able, scores, strict=True))
        number = choose(by_number, last)
        taken.append(number)
        left.remove(number)
        last = by_number[number]
    return taken


# --- policies -------------------------------------------------------------------------------------------------------


def _follow(stages: Stages, members: Sequence[str], by: str, threshold: float) -> Tensor:
    """The last stage of each image, from 0, ``(N,)``."""
    unsure = torch.stack([one.unsureness[by] for one in stages.prefixes(members)])
    sure = unsure < threshold
    sure[-1] = True
    return sure.int().argmax(0)


def _rows(stages: Stages, members: Sequence[str], last: Tensor) -> Tensor:
    """Statistics of each image at its last stage, ``(N, S)``."""
    every = torch.stack([one.statistics for one in stages.prefixes(members)])
    return every[last, torch.arange(len(last))]


def _costs(stages: Stages, members: Sequence[str], last: Tensor) -> Tensor:
    return torch.tensor(cumulated(tuple(members), stages.shares), dtype=torch.float64)[last]


def _tried(stages: Stages, part: Sequence[int]) -> list[Tried]:
    images, found = list(part), list[Tried]()
    for order in _orders(stages, images):
        for length in range(1, len(order) + 1):
            members = order[:length]
            found.append((members, stages.measures[0], 0.0))
            before = stages.prefixes(members)[:-1]
            for name in stages.measures:
                able = before[UNSURENESS[name].members - 1 :]
                values = [value for one in able for value in one.unsureness[name][images].tolist()]
                found += [(members, name, threshold) for threshold in _thresholds(values)]
    return list(dict.fromkeys(found))


def _thresholds(values: Sequence[float]) -> list[float]:
    """Middles between neighbours among the values, at most ``THRESHOLDS``, evenly spaced by rank."""
    known = sorted(set(values))
    middles = [(low + high) / 2 for low, high in pairwise(known)]
    several = min(len(middles), THRESHOLDS)
    return [middles[(2 * number + 1) * len(middles) // (2 * several)] for number in range(several)]


def _fit(stages: Stages, part: Sequence[int], candidates: Sequence[Tried]) -> tuple[Policy, ...]:
    """Policies that no other beats in score and in what it surely keeps at its cost; the last one runs everything."""
    objective, images = stages.objective, list(part)
    sign = 1 if objective.higher_is_better else -1
    samples = torch.cat([torch.ones(1, len(images), dtype=torch.float64), *_samples(len(images))])
    whole = objective.value(samples @ stages.full()[images])

    def worth(tried: Tried) -> Policy:
        last = _follow(stages, *tried)
        own = _rows(stages, tried[0], last)[images]
        values = objective.value(samples @ own)
        kept = kept_share(values, whole, objective.higher_is_better)
        low = torch.nanquantile(kept[1:].view(-1, RESAMPLES), 1 - CONFIDENCE, dim=1).min()
        cost = float(_costs(stages, tried[0], last)[images].mean())
        return Policy(*tried, cost, float(values[0]), _number(kept[0]), _number(low))

    found = sorted((worth(tried) for tried in candidates), key=lambda policy: (policy.cost, -sign * policy.score))
    kept = [one for one in found if one.kept is None or one.kept >= LEAST_KEPT]
    found = kept or found
    everything = next(one for one in found if len(one.members) == len(stages.held.names) and one.threshold == 0)
    front: list[Policy] = []
    top, surest = -math.inf, -math.inf
    for policy in found:
        signed, low = sign * policy.score, -math.inf if policy.kept_low is None else policy.kept_low
        if policy is not everything and (signed > top + STEP * abs(everything.score) or low > surest + STEP):
            front.append(policy)
            top, surest = max(top, signed), max(surest, low)
    return (*front, everything)


def _samples(images: int) -> tuple[Tensor, Tensor]:
    """How often each image is drawn: single images, and runs of neighbours (Kuensch 1989); ``(RESAMPLES, N)``."""
    blocks = min(BLOCKS, images)
    return resample(images, RESAMPLES), resample(blocks, RESAMPLES)[:, torch.arange(images) * blocks // images]


def _number(value: Tensor) -> float | None:
    return float(value) if math.isfinite(value) else None


def _checks(
    stages: Stages, halves: tuple[Sequence[int], Sequence[int]], candidates: Sequence[Sequence[Tried]]
) -> Iterable[Check]:
    """Policies fitted on either half, on the other one."""
    first, second = (_cascade_of(stages, seen, tried) for seen, tried in zip(halves, candidates, strict=True))
    fitted = [(first, list(halves[1])), (second, list(halves[0]))]
    asked: list[tuple[Literal["budget", "keep"], float]] = [
        *(("budget", share) for share in BUDGETS),
        *(("keep", share) for share in KEEPS),
    ]
    objective, full = stages.objective, stages.full()
    for kind, share in asked:
        rows, costs = [], []
        try:
            for cascade, unseen in fitted:
                policy = cascade.for_budget(share) if kind == "budget" else cascade.for_keep(share)
                last = _follow(stages, policy.members, policy.measure, policy.threshold)
                rows.append(_rows(stages, policy.members, last)[unseen])
                costs.append(_costs(stages, policy.members, last)[unseen])
        except UsageError:  # less than the cheapest member costs, or nothing to keep a share of
            continue
        score, whole = objective.value(torch.cat(rows).sum(0)), objective.value(full.sum(0))
        kept = _number(kept_share(score, whole, objective.higher_is_better))
        yield Check(kind, share, float(torch.cat(costs).mean()), kept)


def _cascade_of(stages: Stages, images: Sequence[int], candidates: Sequence[Tried]) -> Cascade:
    objective, policies = stages.objective, _fit(stages, images, candidates)
    full = _full(stages, images)
    return Cascade(objective.name, objective.higher_is_better, len(images), full, stages.shares, policies, checks=())
