"""Greedy selection against brute force, and its properties."""

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pytest

from densemble.ensemble.select import Counts, Selection, better, forward, most


def greedy(count: int, score: Callable[[Sequence[float]], float], rounds: int) -> Selection:
    """Scores of ensembles, computed one by one from their weights."""

    def each(counts: Counts) -> list[float]:
        return [score((np.array(counts) + added) / (sum(counts) + 1)) for added in np.eye(count)]

    return forward(count, each, rounds)


def quadratic(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    target = random.normal(size=200)
    return target, target + random.normal(scale=random.uniform(0.5, 2, count)[:, None], size=(count, 200))


@pytest.mark.parametrize("seed", range(5))
def test_selection_is_close_to_the_best_ensemble_and_never_below_the_best_member(seed: int) -> None:
    target, members = quadratic(seed, 4)

    def score(weights: Sequence[float]) -> float:
        return -float(np.mean((np.asarray(weights) @ members - target) ** 2))

    shares = (np.bincount(c, minlength=4) / 6 for c in combinations_with_replacement(range(4), 6))
    best = max(score(weights) for weights in shares)
    result = greedy(4, score, rounds=20)
    singles = [score(row) for row in np.eye(4)]
    assert result.score >= max(singles)
    assert result.score >= best - 0.02 * abs(best)
    assert score(result.weights) == pytest.approx(result.score)
    assert sum(result.weights) == pytest.approx(1)


def test_follows_caruana_step_by_step() -> None:
    # Member 0 is best alone; 0 and 1 cancel each other's error; 2 lowers every score.
    errors = np.array([1.0, -1.5, 9.0])

    def score(weights: Sequence[float]) -> float:
        return -abs(float(np.asarray(weights) @ errors))

    result = greedy(3, score, rounds=5)
    # 0 -> -1; 0+1 -> -0.25; 0+0+1 -> -0.1667; 0+0+1+1 -> -0.25 ties 0+0+0+1 -> -0.375; 0,0,1,1,0 -> 0.
    assert result.order == (0, 1, 0, 1, 0)
    assert result.score == pytest.approx(0)
    assert result.weights[2] == 0


def test_a_tie_adds_a_selected_candidate_and_keeps_the_first_prefix() -> None:
    result = greedy(3, lambda weights: 1.0, rounds=6)
    assert result.order == (0,)


def test_selection_from_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        forward(0, lambda counts: [])


def test_all_extended_ensembles_are_scored_at_once() -> None:
    errors, asked = np.array([1.0, -1.5, 9.0]), []

    def score(counts: Counts) -> list[float]:
        asked.append(counts)
        return [-abs(float((np.array(counts) + added) @ errors)) / (sum(counts) + 1) for added in np.eye(3)]

    assert forward(3, score, rounds=5).order == (0, 1, 0, 1, 0)
    assert asked == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0), (2, 2, 0)]


def test_selection_stops_after_patience_rounds_and_keeps_the_best_prefix() -> None:
    rounds = []

    def score(counts: Counts) -> list[float]:
        rounds.append(counts)
        return [-abs(sum(counts) - 2.0)]

    result = forward(1, score, rounds=30, patience=4)
    assert len(rounds) == 5  # the first round, whose ensemble equals those of all later rounds
    assert result.order == (0,)


def test_rounding_is_no_gain() -> None:
    random = np.random.default_rng(0)
    noise = iter(random.uniform(-1e-9, 1e-9, 1000))
    result = forward(2, lambda counts: [0.5 + next(noise), 0.5 + next(noise)], rounds=10)
    assert result.order == (0,)


@pytest.mark.parametrize(
    ("score", "other", "expected"),
    [(2.0, 1.0, True), (1.0, 2.0, False), (1.0, 1.0, False), (1 + 1e-9, 1.0, False), (1e-9, 0.0, True),
     (-1.0, -2.0, True), (-1 + 1e-9, -1.0, False), (0.0, -np.inf, True), (-np.inf, -np.inf, False)],
)  # fmt: skip
def test_better(score: float, other: float, expected: bool) -> None:
    assert better(score, other) == expected


@pytest.mark.parametrize(("counts", "expected"), [((0, 0, 0), 1), ((0, 0, 1), 2), ((1, 0, 0), 1)])
def test_the_highest_score_is_selected_and_ties_go_to_selected_candidates(counts: Counts, expected: int) -> None:
    assert most([0.1, 0.7, 0.7], counts, 0.0) == expected
