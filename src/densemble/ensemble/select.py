"""Selection: which members, with which weights, judged on held-out predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd, inf

_ROUNDING = 1e-7
"""Scores that differ by less than this share are equal: mixtures are computed in float32, in any order."""

Counts = tuple[int, ...]
"""How often each candidate was taken."""

Choose = Callable[[Sequence[float], Counts, float], int]
"""Scores with each candidate taken once more, counts so far and the score so far -> the candidate to take."""


@dataclass(frozen=True)
class Selection:
    """Chosen members.

    Attributes:
        weights: how often each candidate was taken, as shares that sum to 1; 0 = left out.
        score: what the chosen mixture scored on the held-out data.
        order: candidates in the order in which they were taken.
    """

    weights: tuple[float, ...]
    score: float
    order: tuple[int, ...]


def better(score: float, other: float) -> bool:
    """Whether a score is higher by more than rounding explains."""
    return score > other and (other == -inf or score - other > _ROUNDING * abs(other))


def most(scores: Sequence[float], counts: Counts, score: float) -> int:
    """The candidate of the highest score. Ties go to a member that is already in: it costs nothing more to run."""
    top = max(scores)
    return min(
        (number for number, value in enumerate(scores) if not better(top, value)),
        key=lambda number: (counts[number] == 0, number),
    )


def forward(
    count: int,
    score: Callable[[Counts], Sequence[float]],
    rounds: int = 30,
    patience: int = 8,
    choose: Choose = most,
) -> Selection:
    """Takes one candidate after the other, with replacement, and keeps the best prefix (Caruana et al. 2004).

    Args:
        count: number of candidates.
        score: counts so far -> held-out score with each candidate taken once more; higher is better.
        rounds: how many to take at most; more than 40 was seen to do harm on small sets.
        patience: rounds without a better score after which nothing more is taken.
        choose: which candidate is taken; default the one of the highest score.

    Raises:
        ValueError: no candidates.
    """
    if count < 1:
        raise ValueError("nothing to select from")
    counts: Counts = (0,) * count
    taken: list[int] = []
    last, best, length = -inf, -inf, 0
    known: dict[Counts, float] = {}  # 2 of 4 is 1 of 2: what differs between the two is rounding
    for _ in range(rounds):
        found = [known.setdefault(_reduced(_with(counts, number)), value) for number, value in enumerate(score(counts))]
        number = choose(found, counts, last)
        taken.append(number)
        counts, last = _with(counts, number), found[number]
        if not length or better(last, best):
            best, length = last, len(taken)
        if len(taken) - length >= patience:
            break
    order = tuple(taken[:length])
    return Selection(tuple(order.count(number) / length for number in range(count)), best, order)


def _with(counts: Counts, number: int) -> Counts:
    return (*counts[:number], counts[number] + 1, *counts[number + 1 :])


def _reduced(counts: Counts) -> Counts:
    common = gcd(*counts)
    return tuple(n // common for n in counts)
