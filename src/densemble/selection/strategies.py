"""Strategies that choose members and weights by kept predictions; each round is one pass over the images."""

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
MOST_FOR_ALL_SUBSETS = 10


@dataclass(frozen=True)
class ParetoPoint:
    """A mixture that no other beats at its price.

    Attributes:
        members: names of those that run.
        weights: one per candidate, summing to 1.
        score: on the held-out images.
        milliseconds: of its members together.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    score: float
    milliseconds: float


def greedy(held: HeldOut, objective: Objective, rounds: int = ROUNDS, patience: int = PATIENCE) -> Selection:
    """Takes what helps most, with replacement, and keeps the best prefix (Caruana et al. 2004).

    Args:
        held: candidates and images to choose by.
        objective: of the task.
        rounds: how many to take at most, which is also the number of passes.
        patience: rounds without a better score after which nothing more is taken.

    Raises:
        DataError: the objective is undefined for every candidate.
    """
    return _forward(held, objective, rounds, patience, most)


def best(held: HeldOut, objective: Objective) -> Selection:
    """The best candidate alone; of equal ones the first.

    Raises:
        DataError: the objective is undefined for every candidate.
    """
    return _best_of(held, objective, [(number,) for number in range(len(held.names))])


def everyone(held: HeldOut, objective: Objective) -> Selection:
    """All candidates with equal weights."""
    return _best_of(held, objective, [tuple(range(len(held.names)))])


def exhaustive(held: HeldOut, objective: Objective) -> Selection:
    """The best of all subsets with equal weights; of equal ones the smallest.

    Raises:
        UsageError: more than 10 candidates, for each one doubles the work.
        DataError: the objective is undefined for every subset.
    """
    count = len(held.names)
    if count > MOST_FOR_ALL_SUBSETS:
        raise UsageError(
            f"{count} candidates have {2**count - 1} subsets; exhaustive selection takes at most "
            f"{MOST_FOR_ALL_SUBSETS}: select greedy, or name fewer"
        )
    subsets = [subset for size in range(1, count + 1) for subset in combinations(range(count), size)]
    return _best_of(held, objective, subsets)


Strategy = Callable[[HeldOut, Objective], Selection]
SELECT: dict[str, Strategy] = {"greedy": greedy, "best": best, "all": everyone, "exhaustive": exhaustive}
"""Strategy by name."""


def greedy_by_cost(
    held: HeldOut,
    objective: Objective,
    milliseconds: Sequence[float],
    budget: float | None = None,
    rounds: int = ROUNDS,
    patience: int = PATIENCE,
) -> Selection:
    """Takes what gains most per millisecond; a candidate that is in already costs nothing more.

    The gain of the first is counted from the worst candidate. Within a budget it is the better of this and of plain
    greedy selection among what can be afforded, for either alone may be far from the best (Leskovec et al. 2007).

    Args:
        held: candidates and images to choose by.
        objective: of the task.
        milliseconds: > 0, of each candidate.
        budget: milliseconds that the chosen may take together; default no limit.
        rounds: how many to take at most.
        patience: rounds without a better score after which nothing more is taken.

    Raises:
        UsageError: no candidate is within the budget.
        DataError: the objective is undefined for every candidate.
    """
    limit = inf if budget is None else budget
    fastest = min(range(len(held.names)), key=lambda number: milliseconds[number])
    if milliseconds[fastest] > limit:
        raise UsageError(
            f"no candidate runs within {limit:g} ms; the fastest, '{held.names[fastest]}', needs "
            f"{milliseconds[fastest]:g} ms: raise the budget"
        )
    found = _forward(held, objective, rounds, patience, _most_per_millisecond(milliseconds, limit))
    if budget is None:
        return found
    plain = _forward(held, objective, rounds, patience, _most_within(milliseconds, limit))
    sign = 1 if objective.higher_is_better else -1
    return plain if better(sign * plain.score, sign * found.score) else found


def pareto(
    held: HeldOut, objective: Objective, milliseconds: Sequence[float], rounds: int = ROUNDS
) -> list[ParetoPoint]:
    """Mixtures that no other of the tried ones beats at its price, cheapest first.

    Tried are single candidates, the prefixes of greedy selection by score and by gain per millisecond, and all.

    Args:
        held: candidates and images.
        objective: of the task.
        milliseconds: > 0, of each candidate.
        rounds: of greedy selection.

    Raises:
        DataError: the objective is undefined for every candidate.
    """
    count = len(held.names)
    orders = [greedy(held, objective, rounds).order, greedy_by_cost(held, objective, milliseconds, rounds=rounds).order]
    groups: list[tuple[int, ...]] = [(number,) for number in range(count)]
    groups += [order[:length] for order in orders for length in range(2, len(order) + 1)]
    mixtures = list(dict.fromkeys(_shares(group, count) for group in [*groups, tuple(range(count))]))
    sums = totals(held, mixtures, objective)
    tried = sorted(
        (
            (price(weights, milliseconds), -signed, weights, value)
            for weights, signed, value in zip(
                mixtures, objective.signed(sums).tolist(), objective.value(sums).tolist(), strict=True
            )
        ),
        key=lambda row: row[:2],
    )
    front: list[ParetoPoint] = []
    top = -inf
    for cost, negative, weights, value in tried:
        if better(-negative, top):
            top = -negative
            names = tuple(name for name, weight in zip(held.names, weights, strict=True) if weight > 0)
            front.append(ParetoPoint(names, weights, value, cost))
    return front


def price(weights: Sequence[float], milliseconds: Sequence[float]) -> float:
    """Milliseconds of the candidates whose weight is not 0."""
    return sum(cost for weight, cost in zip(weights, milliseconds, strict=True) if weight > 0)


def _forward(held: HeldOut, objective: Objective, rounds: int, patience: int, choose: Choose) -> Selection:
    def score(counts: Counts) -> list[float]:
        sums = totals_of(held, _one_more(counts), objective)
        return _defined(objective.signed(sums).tolist(), held, objective)

    found = forward(len(held.names), score, rounds, patience, choose)
    return replace(found, score=found.score if objective.higher_is_better else -found.score)


def _one_more(counts: Counts) -> Combine:
    """Maps of all candidates -> the mixture so far with each of them taken once more."""
    total = sum(counts) + 1

    def combine(maps: Tensor) -> Tensor:
        if total == 1:
            return maps
        so_far = torch.zeros_like(maps[0])
        for own, taken in zip(maps, counts, strict=True):
            if taken:  # 0 times NaN would be NaN
                so_far.add_(own, alpha=taken)
        return (maps + so_far).div_(total)

    return combine


def _most_per_millisecond(milliseconds: Sequence[float], limit: float) -> Choose:
    def choose(scores: Sequence[float], counts: Counts, score: float) -> int:
        able = _affordable(counts, milliseconds, limit)
        floor = score if any(counts) else min(scores)
        gaining = [number for number in able if better(scores[number], floor)]
        free = [number for number in gaining if counts[number]]
        if free:
            return max(free, key=lambda number: scores[number])
        if gaining:
            return max(gaining, key=lambda number: (scores[number] - floor) / milliseconds[number])
        top = max(scores[number] for number in able)
        tied = (number for number in able if not better(top, scores[number]))
        return min(tied, key=lambda number: (counts[number] == 0, milliseconds[number]))

    return choose


def _most_within(milliseconds: Sequence[float], limit: float) -> Choose:
    def choose(scores: Sequence[float], counts: Counts, score: float) -> int:
        able = set(_affordable(counts, milliseconds, limit))
        return most([value if number in able else -inf for number, value in enumerate(scores)], counts, score)

    return choose


def _affordable(counts: Counts, milliseconds: Sequence[float], limit: float) -> list[int]:
    spent = price(counts, milliseconds)
    return [number for number, cost in enumerate(milliseconds) if counts[number] or spent + cost <= limit]


def _best_of(held: HeldOut, objective: Objective, groups: Sequence[tuple[int, ...]]) -> Selection:
    mixtures = [_shares(group, len(held.names)) for group in groups]
    sums = totals(held, mixtures, objective)
    scores = _defined(objective.signed(sums).tolist(), held, objective)
    number = next(number for number, score in enumerate(scores) if not better(max(scores), score))
    return Selection(mixtures[number], float(objective.value(sums[number])), groups[number])


def _shares(group: Sequence[int], count: int) -> tuple[float, ...]:
    return tuple(group.count(number) / len(group) for number in range(count))


def _defined(scores: list[float], held: HeldOut, objective: Objective) -> list[float]:
    if max(scores) == -inf:
        raise DataError(
            f"'{objective.name}' is undefined on the {len(held)} held-out images, so nothing can be chosen by it: "
            "look at their maps with `densemble data check`, or choose by another metric"
        )
    return scores
