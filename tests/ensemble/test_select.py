"""Greedy selection against brute force, and its properties."""

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pytest

from densemble.ensemble.select import Counts, Selection, better, forward, most


def greedy(count: int, score: Callable[[Sequence[float]], float], rounds: int) -> Selection:
    """Mixtures scored one by one by their weights."""

    def each(counts: Counts) -> list[float]:
        return [score((np.array(counts) + own) / (sum(counts) + 1)) for own in np.eye(count)]

    return forward(count, each, rounds)


def quadratic(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.normal(size=200)
    return truth, truth + random.normal(scale=random.uniform(0.5, 2, count)[:, None], size=(count, 200))


@pytest.mark.parametrize("seed", range(5))
def test_close_to_the_best_of_all_mixtures_and_never_below_the_best_member(seed: int) -> None:
    truth, members = quadratic(seed, 4)

    def score(weights: Sequence[float]) -> float:
        return -float(np.mean((np.asarray(weights) @ members - truth) ** 2))

    mixtures = (np.bincount(c, minlength=4) / 6 for c in combinations_with_replacement(range(4), 6))
    best = max(score(mixture) for mixture in mixtures)
    found = greedy(4, score, rounds=20)
    singles = [score(row) for row in np.eye(4)]
    assert found.score >= max(singles)
    assert found.score >= best - 0.02 * abs(best)
    assert score(found.weights) == pytest.approx(found.score)
    assert sum(found.weights) == pytest.approx(1)


def test_follows_caruana_step_by_step() -> None:
    # Member 0 is best alone; 0 and 1 cancel each other's error; 2 only harms.
    errors = np.array([1.0, -1.5, 9.0])

    def score(weights: Sequence[float]) -> float:
        return -abs(float(np.asarray(weights) @ errors))

    found = greedy(3, score, rounds=5)
    # 0 -> -1; 0+1 -> -0.25; 0+0+1 -> -0.1667; 0+0+1+1 -> -0.25 ties 0+0+0+1 -> -0.375; 0,0,1,1,0 -> 0.
    assert found.order == (0, 1, 0, 1, 0)
    assert found.score == pytest.approx(0)
    assert found.weights[2] == 0


def test_a_tie_takes_a_member_that_is_in_already_and_the_first_prefix_is_kept() -> None:
    found = greedy(3, lambda weights: 1.0, rounds=6)
    assert found.order == (0,)


def test_nothing_to_select_from() -> None:
    with pytest.raises(ValueError, match="nothing"):
        forward(0, lambda counts: [])


def test_all_next_mixtures_are_scored_at_once() -> None:
    errors, asked = np.array([1.0, -1.5, 9.0]), []

    def score(counts: Counts) -> list[float]:
        asked.append(counts)
        return [-abs(float((np.array(counts) + own) @ errors)) / (sum(counts) + 1) for own in np.eye(3)]

    assert forward(3, score, rounds=5).order == (0, 1, 0, 1, 0)
    assert asked == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0), (2, 2, 0)]


def test_it_stops_when_patience_is_over_and_keeps_the_best_prefix() -> None:
    rounds = []

    def score(counts: Counts) -> list[float]:
        rounds.append(counts)
        return [-abs(sum(counts) - 2.0)]

    found = forward(1, score, rounds=30, patience=4)
    assert len(rounds) == 5  # the first, whose mixture is that of every later one
    assert found.order == (0,)


def test_rounding_is_no_gain() -> None:
    random = np.random.default_rng(0)
    noise = iter(random.uniform(-1e-9, 1e-9, 1000))
    found = forward(2, lambda counts: [0.5 + next(noise), 0.5 + next(noise)], rounds=10)
    assert found.order == (0,)


@pytest.mark.parametrize(
    ("score", "other", "wanted"),
    [(2.0, 1.0, True), (1.0, 2.0, False), (1.0, 1.0, False), (1 + 1e-9, 1.0, False), (1e-9, 0.0, True),
     (-1.0, -2.0, True), (-1 + 1e-9, -1.0, False), (0.0, -np.inf, True), (-np.inf, -np.inf, False)],
)  # fmt: skip
def test_better(score: float, other: float, wanted: bool) -> None:
    assert better(score, other) == wanted


@pytest.mark.parametrize(("counts", "wanted"), [((0, 0, 0), 1), ((0, 0, 1), 2), ((1, 0, 0), 1)])
def test_the_highest_is_taken_and_of_equal_ones_what_is_in(counts: Counts, wanted: int) -> None:
    assert most([0.1, 0.7, 0.7], counts, 0.0) == wanted
