"""Selection: which members, with which weights, judged on held-out predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


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


def greedy(count: int, score: Callable[[Sequence[float]], float], rounds: int = 30, patience: int = 8) -> Selection:
    """Greedy selection with replacement (Caruana et al. 2004): take what helps most, keep the best prefix.

    Args:
        count: number of candidates.
        score: held-out score of a mixture with the given weights (one per candidate, summing to 1); higher is better.
        rounds: how many to take at most; more than 40 was seen to do harm on small sets.
        patience: rounds without a better score after which nothing more is taken.

    Raises:
        ValueError: no candidates.
    """
    if count < 1:
        raise ValueError("nothing to select from")
    taken: list[int] = []
    best: tuple[float, int] | None = None
    remembered: dict[tuple[int, ...], float] = {}

    def mixture(order: Sequence[int]) -> float:
        key = tuple(order.count(i) for i in range(count))
        if key not in remembered:
            remembered[key] = score([n / len(order) for n in key])
        return remembered[key]

    for _ in range(rounds):
        # Ties go to a member that is already in: it costs nothing more to run.
        value, _, candidate = max((mixture([*taken, i]), i in taken, -i) for i in range(count))
        taken.append(-candidate)
        if best is None or value > best[0]:
            best = (value, len(taken))
        if len(taken) - best[1] >= patience:
            break
    assert best is not None
    order = taken[: best[1]]
    return Selection(tuple(order.count(i) / len(order) for i in range(count)), best[0], tuple(order))
