"""Strategies that select members and weights by kept predictions; each round is one pass over the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf

import torch
from torch import Tensor

from densemble.ensemble.select import Choose, Counts, Selection, better, forward, most
from densemble.errors import DataError, UsageError
from densemble.metrics import Objective
from densemble.selection.candidate_scores import Combine, totals, totals_of
from densemble.selection.held_out_predictions import HeldOut

ROUNDS, PATIENCE = 30, 8
MAX_FOR_ALL_SUBSETS = 10
"""Maximum number of candidates for exhaustive selection."""


@dataclass(frozen=True)
class ParetoPoint:
    """An ensemble that no other beats at its cost.

    Attributes:
        members: names of the members.
        weights: one weight per candidate, with a sum of 1.
        score: score on the held-out images.
        milliseconds: time of all members together.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    score: float
    milliseconds: float


def greedy(held: HeldOut, objective: Objective, rounds: int = ROUNDS, patience: int = PATIENCE) -> Selection:
    """Add the best candidate in each round, with replacement, and keep the best prefix (Caruana et al. 2004).

    Args:
        held: candidates and images to select by.
        objective: objective of the selection.
        rounds: maximum number of rounds; each round is one pass over the images.
        patience: number of rounds without a better score after which the selection stops.

    Raises:
        DataError: the objective is undefined for every candidate.
    """
    return _forward(held, objective, rounds, patience, most)


def best(held: HeldOut, objective: Objective) -> Selection:
    """Select the single best candidate; of equal candidates, the first.

    Raises:
        DataError: the objective is undefined for every candidate.
    """
    return _best_of(held, objective, [(candidate,) for candidate in range(len(held.names))])


def all_candidates(held: HeldOut, objective: Objective) -> Selection:
    """Select all candidates with equal weights."""
    return _best_of(held, objective, [tuple(range(len(held.names)))])


def exhaustive(held: HeldOut, objective: Objective) -> Selection:
    """Select the best of all subsets with equal weights; of equal subsets, the smallest.

    Raises:
        UsageError: more than 10 candidates: each candidate doubles the work.
        DataError: the objective is undefined for every subset.
    """
    count = len(held.names)
    if count > MAX_FOR_ALL_SUBSETS:
        raise UsageError(
            f"{count} candidates have {2**count - 1} subsets; exhaustive selection supports at most "
            f"{MAX_FOR_ALL_SUBSETS} candidates: use --select greedy, or name fewer candidates"
        )
    subsets = [subset for size in range(1, count + 1) for subset in combinations(range(count), size)]
    return _best_of(held, objective, subsets)


Strategy = Callable[[HeldOut, Objective], Selection]
SELECT: dict[str, Strategy] = {"greedy": greedy, "best": best, "all": all_candidates, "exhaustive": exhaustive}
"""Strategy by name."""


def greedy_by_cost(
    held: HeldOut,
    objective: Objective,
    milliseconds: Sequence[float],
    budget: float | None = None,
    rounds: int = ROUNDS,
) -> Selection:
    """Add the candidate with the highest gain per millisecond in each round; a selected candidate costs nothing more.

    The gain of the first candidate is its distance to the worst one. With a budget, the result is the better one of
    this selection and of plain greedy selection among the affordable candidates, because either alone may be far from
    the best (Leskovec et al. 2007).

    Args:
        held: candidates and images to select by.
        objective: objective of the selection.
        milliseconds: time of each candidate, > 0.
        budget: milliseconds of all selected candidates together; default: no limit.
        rounds: maximum number of rounds.

    Raises:
        UsageError: the time of every candidate exceeds the budget.
        DataError: the objective is undefined for every candidate.
    """
    limit = inf if budget is None else budget
    fastest = min(range(len(held.names)), key=lambda candidate: milliseconds[candidate])
    if milliseconds[fastest] > limit:
        raise UsageError(
            f"no candidate runs within {limit:g} ms; the fastest, '{held.names[fastest]}', needs "
            f"{milliseconds[fastest]:g} ms: raise the budget"
        )
    per_cost = _forward(held, objective, rounds, PATIENCE, _most_per_millisecond(milliseconds, limit))
    if budget is None:
        return per_cost
    plain = _forward(held, objective, rounds, PATIENCE, _most_within(milliseconds, limit))
    sign = 1 if objective.higher_is_better else -1
    return plain if better(sign * plain.score, sign * per_cost.score) else per_cost


def pareto(
    held: HeldOut, objective: Objective, milliseconds: Sequence[float], rounds: int = ROUNDS
) -> list[ParetoPoint]:
    """Return the ensembles that no other beats at its cost, cheapest first.

    The compared ensembles are the single candidates, the prefixes of greedy selection by score and by gain per
    millisecond, and all candidates together.

    Args:
        held: candidates and images.
        objective: objective of the score.
        milliseconds: time of each candidate, > 0.
        rounds: maximum number of rounds of greedy selection.

    Raises:
        DataError: the objective is undefined for every candidate.
    """
    count = len(held.names)
    orders = [greedy(held, objective, rounds).order, greedy_by_cost(held, objective, milliseconds, rounds=rounds).order]
    groups: list[tuple[int, ...]] = [(candidate,) for candidate in range(count)]
    groups += [order[:length] for order in orders for length in range(2, len(order) + 1)]
    ensembles = list(dict.fromkeys(_shares(group, count) for group in [*groups, tuple(range(count))]))
    sums = totals(held, ensembles, objective)
    values = zip(ensembles, objective.signed(sums).tolist(), objective.value(sums).tolist(), strict=True)
    compared = [(price(weights, milliseconds), signed, weights, value) for weights, signed, value in values]
    front: list[ParetoPoint] = []
    top = -inf
    for cost, signed, weights, value in sorted(compared, key=lambda row: (row[0], -row[1])):
        if better(signed, top):
            top = signed
            names = tuple(name for name, weight in zip(held.names, weights, strict=True) if weight > 0)
            front.append(ParetoPoint(names, weights, value, cost))
    return front


def price(weights: Sequence[float], milliseconds: Sequence[float]) -> float:
    """Return the milliseconds of all candidates with a weight above 0 together."""
    return sum(cost for weight, cost in zip(weights, milliseconds, strict=True) if weight > 0)


def _forward(held: HeldOut, objective: Objective, rounds: int, patience: int, choose: Choose) -> Selection:
    def score(counts: Counts) -> list[float]:
        sums = totals_of(held, _with_each_added(counts), objective)
        return _require_defined(objective.signed(sums).tolist(), held, objective)

    selection = forward(len(held.names), score, rounds, patience, choose)
    return replace(selection, score=selection.score if objective.higher_is_better else -selection.score)


def _with_each_added(counts: Counts) -> Combine:
    """Return a function from the maps of all candidates to the current mean with each candidate added once more."""
    total = sum(counts) + 1

    def combine(maps: Tensor) -> Tensor:
        if total == 1:
            return maps
        so_far = torch.zeros_like(maps[0])
        for candidate_maps, times in zip(maps, counts, strict=True):
            if times:  # 0 times NaN would be NaN
                so_far.add_(candidate_maps, alpha=times)
        return (maps + so_far).div_(total)

    return combine


def _most_per_millisecond(milliseconds: Sequence[float], limit: float) -> Choose:
    def choose(scores: Sequence[float], counts: Counts, score: float) -> int:
        affordable = _affordable(counts, milliseconds, limit)
        reference = score if any(counts) else min(scores)
        gaining = [index for index in affordable if better(scores[index], reference)]
        free = [index for index in gaining if counts[index]]
        if free:
            return max(free, key=lambda index: scores[index])
        if gaining:
            return max(gaining, key=lambda index: (scores[index] - reference) / milliseconds[index])
        top = max(scores[index] for index in affordable)
        tied = (index for index in affordable if not better(top, scores[index]))
        return min(tied, key=lambda index: (counts[index] == 0, milliseconds[index]))

    return choose


def _most_within(milliseconds: Sequence[float], limit: float) -> Choose:
    def choose(scores: Sequence[float], counts: Counts, score: float) -> int:
        affordable = set(_affordable(counts, milliseconds, limit))
        return most([value if index in affordable else -inf for index, value in enumerate(scores)], counts, score)

    return choose


def _affordable(counts: Counts, milliseconds: Sequence[float], limit: float) -> list[int]:
    spent = price(counts, milliseconds)
    return [index for index, cost in enumerate(milliseconds) if counts[index] or spent + cost <= limit]


def _best_of(held: HeldOut, objective: Objective, groups: Sequence[tuple[int, ...]]) -> Selection:
    ensembles = [_shares(group, len(held.names)) for group in groups]
    sums = totals(held, ensembles, objective)
    scores = _require_defined(objective.signed(sums).tolist(), held, objective)
    index = next(index for index, score in enumerate(scores) if not better(max(scores), score))
    return Selection(ensembles[index], float(objective.value(sums[index])), groups[index])


def _shares(group: Sequence[int], count: int) -> tuple[float, ...]:
    return tuple(group.count(index) / len(group) for index in range(count))


def _require_defined(scores: list[float], held: HeldOut, objective: Objective) -> list[float]:
    if max(scores) == -inf:
        raise DataError(
            f"'{objective.name}' is undefined on the {len(held)} held-out images and cannot select members: "
            "check the targets with `densemble data check`, or use another --metric"
        )
    return scores
