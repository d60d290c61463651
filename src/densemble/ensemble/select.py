"""Selection of members and weights by their held-out score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd, inf

_ROUNDING = 1e-7
"""Scores whose relative difference is smaller are equal: ensembles are combined in float32, in any order."""

Counts = tuple[int, ...]
"""Number of times that each candidate was added."""

Choose = Callable[[Sequence[float], Counts, float], int]
"""Takes the scores with each candidate added once more, the counts and the current score; returns a candidate."""


@dataclass(frozen=True)
class Selection:
    """Selected members.

    Attributes:
        weights: how often each candidate was added, as shares that sum to 1; 0: left out.
        score: held-out score of the selected ensemble.
        order: candidates in the order in which they were added.
    """

    weights: tuple[float, ...]
    score: float
    order: tuple[int, ...]


def better(score: float, other: float) -> bool:
    """Whether a score is higher by more than a rounding difference."""
    return score > other and (other == -inf or score - other > _ROUNDING * abs(other))


def most(scores: Sequence[float], counts: Counts, score: float) -> int:
    """Return the candidate with the highest score. Ties go to a candidate already selected: it adds no cost."""
    top = max(scores)
    return min(
        (candidate for candidate, value in enumerate(scores) if not better(top, value)),
        key=lambda candidate: (counts[candidate] == 0, candidate),
    )


def forward(
    count: int,
    score: Callable[[Counts], Sequence[float]],
    rounds: int = 30,
    patience: int = 8,
    choose: Choose = most,
) -> Selection:
    """Add one candidate after the other, with replacement, and keep the best prefix (Caruana et al. 2004).

    Args:
        count: number of candidates.
        score: takes the current counts; returns the held-out score with each candidate added once more, higher is
            better.
        rounds: maximum number of additions; more than 40 lowered the score on small data sets.
        patience: number of additions without a better score after which to stop.
        choose: selects the candidate to add; default: the one with the highest score.

    Raises:
        ValueError: there are no candidates.
    """
    if count < 1:
        raise ValueError("nothing to select from")
    counts: Counts = (0,) * count
    added: list[int] = []
    last, best, length = -inf, -inf, 0
    known: dict[Counts, float] = {}  # counts 2 of 4 and 1 of 2 differ by rounding only: use one score for both
    for _ in range(rounds):
        scores = [known.setdefault(_reduced(_with(counts, n)), value) for n, value in enumerate(score(counts))]
        candidate = choose(scores, counts, last)
        added.append(candidate)
        counts, last = _with(counts, candidate), scores[candidate]
        if not length or better(last, best):
            best, length = last, len(added)
        if len(added) - length >= patience:
            break
    order = tuple(added[:length])
    return Selection(tuple(order.count(candidate) / length for candidate in range(count)), best, order)


def _with(counts: Counts, candidate: int) -> Counts:
    return (*counts[:candidate], counts[candidate] + 1, *counts[candidate + 1 :])


def _reduced(counts: Counts) -> Counts:
    common = gcd(*counts)
    return tuple(n // common for n in counts)
