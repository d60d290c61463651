"""Fit cascades on kept predictions: order of the members, threshold, number of members, and the score they keep."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from densemble.ensemble.cascade import UNCERTAINTY_MEASURES, Cascade, Check, Policy, cumulative_costs, kept_share
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import rule_row
from densemble.errors import DataError, UsageError
from densemble.evaluation.bootstrap import resample
from densemble.metrics import Objective
from densemble.selection.cascade_subsets import SubsetResults
from densemble.selection.held_out_predictions import HeldOut

CONFIDENCE = 0.95
RESAMPLES = 500
BLOCKS = 10
"""Number of blocks of neighbouring images in the block bootstrap: video frames are not independent."""
STEP = 5e-4
"""Minimum gain of a more expensive policy, as a share of the full score."""
MIN_KEPT = 0.75
"""Policies that keep a smaller share of the full score are dropped, if others remain."""
THRESHOLDS = 16
"""Maximum number of thresholds for each order and number of members."""
MIN_IMAGES = 4
"""Minimum number of images to fit and check a cascade."""
BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
KEEPS = (0.98, 0.99, 0.995, 1.0)
"""Budgets and kept shares that are checked on images that the policies were not fitted on."""

PolicyKey = tuple[tuple[str, ...], str, float]
"""Members, measure of uncertainty and threshold of a policy; threshold 0: all of these members always run."""


def why_no_cascade(members: int, rule: str) -> str | None:
    """Return why an ensemble cannot run as a cascade; ``None`` if it can."""
    if members < 2:
        return "the ensemble has only one member"
    if rule_row(rule).needs_all:
        return f"the rule '{rule}' was fitted for all members and cannot combine a part of them"
    return None


def fit_cascade(
    held: HeldOut,
    combination: Combination,
    objective: Objective,
    milliseconds: Sequence[float],
    served: HeldOut | None = None,
) -> Cascade:
    """Fit the policies that no other policy beats at its cost, and check them on images that they were not fitted on.

    The orders of the members are: by score of the single members, by forward selection, by forward selection with gain
    per millisecond, and cheapest first. For each order, the policies use every number of members, and thresholds
    between the uncertainties of the images.

    Thousands of policies are compared on the small kept predictions. Thin objects disappear on small maps, and whole
    ensembles are better than single members mainly at thin objects. So the selected policies should be measured again
    on served maps.

    Args:
        held: predictions of the members on N images, tempered.
        combination: combination of the members.
        objective: objective of the score.
        milliseconds: time of each member for one image, > 0.
        served: served maps of the same members on some of the same images, evenly spaced; read once. Default: ``held``.

    Raises:
        UsageError: the ensemble cannot run as a cascade; see :func:`why_no_cascade`.
        DataError: fewer than 4 images, or the objective is undefined for them.
    """
    reason = why_no_cascade(len(held.names), combination.rule)
    if reason is not None:
        raise UsageError(f"no cascade: {reason}")
    subsets = SubsetResults(held, combination, objective, milliseconds)
    parts = _parts(subsets)
    keys = [_policy_keys(subsets, part) for part in parts]
    if served is not None:
        fitted = [_fit(subsets, part, part_keys) for part, part_keys in zip(parts, keys, strict=True)]
        keys = [[(policy.members, policy.measure, policy.threshold) for policy in policies] for policies in fitted]
        subsets = SubsetResults(served, combination, objective, milliseconds, max_pixels=None)
        parts = _parts(subsets)
        subsets.measure_prefixes({members for part_keys in keys for members, _, _ in part_keys})
    return _cascade_of(subsets, parts[0], keys[0], tuple(_checks(subsets, parts[1:], keys[1:])))


def _parts(subsets: SubsetResults) -> list[range]:
    """Return all images, and two contiguous halves of them, so that neighbours such as video frames stay together.

    Raises:
        DataError: too few images, or the objective is undefined for them.
    """
    images, objective = len(subsets.held), subsets.objective
    if images < MIN_IMAGES:
        raise DataError(f"{images} held-out images are too few to fit a cascade to; keep at least {MIN_IMAGES}")
    every = range(images)
    if not math.isfinite(_full(subsets, every)):
        raise DataError(f"{objective.name} is undefined for the held-out images; no cascade can be fitted by it")
    return [every, range(images // 2), range(images // 2, images)]


def _full(subsets: SubsetResults, images: Sequence[int]) -> float:
    return float(subsets.objective.value(subsets.full()[list(images)].sum(0)))


# --- orders ---------------------------------------------------------------------------------------------------------


def _orders(subsets: SubsetResults, images: Sequence[int]) -> list[tuple[str, ...]]:
    names = subsets.held.names
    costs = [subsets.shares[name] for name in names]
    single = subsets.signed([frozenset([member]) for member in range(len(names))], images)
    by_score = sorted(range(len(names)), key=lambda member: -single[member])
    by_cost = sorted(range(len(names)), key=lambda member: costs[member])
    worst = min(single)

    def per_cost(scores: Mapping[int, float], last: float | None) -> int:
        gains = {member: score - (worst if last is None else last) for member, score in scores.items()}
        if max(gains.values()) <= 0:  # a loss divided by its cost would favour the most expensive member
            return max(gains, key=lambda member: gains[member])
        return max(gains, key=lambda member: gains[member] / costs[member])

    def highest(scores: Mapping[int, float], last: float | None) -> int:
        return max(scores, key=lambda member: scores[member])

    orders = [by_score, by_cost, _forward(subsets, images, highest), _forward(subsets, images, per_cost)]
    return list(dict.fromkeys(tuple(names[member] for member in order) for order in orders))


def _forward(
    subsets: SubsetResults, images: Sequence[int], choose: Callable[[Mapping[int, float], float | None], int]
) -> list[int]:
    """Order all members by forward selection.

    ``choose`` returns the next member, given the score with each remaining member and the last score.
    """
    order: list[int] = []
    last: float | None = None
    remaining = set(range(len(subsets.held.names)))
    while remaining:
        pool = sorted(remaining)
        scores = subsets.signed([frozenset([*order, member]) for member in pool], images)
        by_member = dict(zip(pool, scores, strict=True))
        member = choose(by_member, last)
        order.append(member)
        remaining.remove(member)
        last = by_member[member]
    return order


# --- policies -------------------------------------------------------------------------------------------------------


def _last_stages(subsets: SubsetResults, key: PolicyKey) -> Tensor:
    """Index of the last stage of each image, ``(N,)``."""
    members, measure, threshold = key
    certain = torch.stack([prefix.uncertainty[measure] for prefix in subsets.prefixes(members)]) < threshold
    certain[-1] = True
    return certain.int().argmax(0)


def _followed(subsets: SubsetResults, key: PolicyKey, images: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Statistics ``(n, S)`` and cost ``(n,)`` of a policy on n images."""
    last, members = _last_stages(subsets, key), key[0]
    every = torch.stack([prefix.statistics for prefix in subsets.prefixes(members)])
    costs = torch.tensor(cumulative_costs(members, subsets.shares), dtype=torch.float64)
    return every[last, torch.arange(len(last))][images], costs[last][images]


def _policy_keys(subsets: SubsetResults, part: Sequence[int]) -> list[PolicyKey]:
    images, keys = list(part), list[PolicyKey]()
    for order in _orders(subsets, images):
        for length in range(1, len(order) + 1):
            members = order[:length]
            keys.append((members, subsets.measures[0], 0.0))
            before = subsets.prefixes(members)[:-1]
            for name in subsets.measures:
                stages = before[UNCERTAINTY_MEASURES[name].members - 1 :]
                values = [value for stage in stages for value in stage.uncertainty[name][images].tolist()]
                keys += [(members, name, threshold) for threshold in _thresholds(values)]
    return list(dict.fromkeys(keys))


def _thresholds(values: Sequence[float]) -> list[float]:
    """Midpoints between neighbouring values, at most ``THRESHOLDS``, evenly spaced by rank."""
    distinct = sorted(set(values))
    midpoints = [(low + high) / 2 for low, high in pairwise(distinct)]
    count = min(len(midpoints), THRESHOLDS)
    return [midpoints[(2 * number + 1) * len(midpoints) // (2 * count)] for number in range(count)]


def _fit(subsets: SubsetResults, part: Sequence[int], keys: Sequence[PolicyKey]) -> tuple[Policy, ...]:
    """Return the policies that no other beats in score or in the lower bound of the kept share at its cost.

    The last policy runs all members.
    """
    objective, images = subsets.objective, list(part)
    sign = 1 if objective.higher_is_better else -1
    samples = torch.cat([torch.ones(1, len(images), dtype=torch.float64), *_samples(len(images))])
    whole = objective.value(samples @ subsets.full()[images])

    def evaluated(key: PolicyKey) -> Policy:
        rows, costs = _followed(subsets, key, images)
        values = objective.value(samples @ rows)
        kept = kept_share(values, whole, objective.higher_is_better)
        low = torch.nanquantile(kept[1:].view(-1, RESAMPLES), 1 - CONFIDENCE, dim=1).min()
        return Policy(*key, float(costs.mean()), float(values[0]), _number(kept[0]), _number(low))

    policies = sorted((evaluated(key) for key in keys), key=lambda policy: (policy.cost, -sign * policy.score))
    policies = [policy for policy in policies if policy.kept is None or policy.kept >= MIN_KEPT] or policies
    everything = next(
        policy for policy in policies if len(policy.members) == len(subsets.held.names) and policy.threshold == 0
    )
    front: list[Policy] = []
    top, top_low = -math.inf, -math.inf
    for policy in policies:
        signed, low = sign * policy.score, -math.inf if policy.kept_low is None else policy.kept_low
        if policy is not everything and (signed > top + STEP * abs(everything.score) or low > top_low + STEP):
            front.append(policy)
            top, top_low = max(top, signed), max(top_low, low)
    return (*front, everything)


def _samples(images: int) -> tuple[Tensor, Tensor]:
    """Bootstrap samples of single images and of blocks of neighbours (Kuensch 1989), both ``(RESAMPLES, N)``."""
    blocks = min(BLOCKS, images)
    return resample(images, RESAMPLES), resample(blocks, RESAMPLES)[:, torch.arange(images) * blocks // images]


def _number(value: Tensor) -> float | None:
    return float(value) if math.isfinite(value) else None


def _checks(
    subsets: SubsetResults, halves: Sequence[Sequence[int]], keys: Sequence[Sequence[PolicyKey]]
) -> Iterable[Check]:
    """Measure the policies that were fitted on either half on the other half."""
    first, second = (_cascade_of(subsets, half, half_keys) for half, half_keys in zip(halves, keys, strict=True))
    fitted = [(first, list(halves[1])), (second, list(halves[0]))]
    requests: list[tuple[Literal["budget", "keep"], float]] = [
        *(("budget", share) for share in BUDGETS),
        *(("keep", share) for share in KEEPS),
    ]
    objective = subsets.objective
    whole = objective.value(subsets.full().sum(0))
    for kind, share in requests:
        rows, costs = [], []
        try:
            for cascade, unseen in fitted:
                policy = cascade.for_budget(share) if kind == "budget" else cascade.for_keep(share)
                key = (policy.members, policy.measure, policy.threshold)
                half_rows, half_costs = _followed(subsets, key, unseen)
                rows.append(half_rows)
                costs.append(half_costs)
        except UsageError:  # a budget below the cheapest member, or a score that is not positive
            continue
        kept = kept_share(objective.value(torch.cat(rows).sum(0)), whole, objective.higher_is_better)
        yield Check(kind, share, float(torch.cat(costs).mean()), _number(kept))


def _cascade_of(
    subsets: SubsetResults, images: Sequence[int], keys: Sequence[PolicyKey], checks: tuple[Check, ...] = ()
) -> Cascade:
    return Cascade(
        metric=subsets.objective.name,
        higher_is_better=subsets.objective.higher_is_better,
        images=len(images),
        full=_full(subsets, images),
        shares=subsets.shares,
        policies=_fit(subsets, images, keys),
        checks=checks,
    )
