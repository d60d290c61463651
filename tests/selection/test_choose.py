"""Selections against brute force that stacks everything in float64, and AutoGluon if it is installed."""

from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from small_heldout import SIZE, TASKS, arrays, small_set

from densemble.errors import DataError, UsageError
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.selection.strategies import (
    SELECT,
    all_candidates,
    best,
    exhaustive,
    greedy,
    greedy_by_cost,
    pareto,
    price,
)
from densemble.tasks import SegmentationTask


def stacked(held: HeldOut) -> np.ndarray:
    """All maps, float64 (M, N, K, pixels)."""
    return np.stack([np.asarray(maps, np.float64) for maps in arrays(held)]).reshape(
        len(held.names), len(held), -1, SIZE[0] * SIZE[1]
    )


def brute_score(metric: str, combined: np.ndarray, held: HeldOut) -> float:
    """Score of maps (N, K, pixels), higher is better; independent of densemble."""
    targets = np.stack([target.numpy().reshape(-1) for target, _ in held.targets])
    if metric == "mae":
        return -float(np.abs(combined[:, 0] - targets).mean())
    if metric == "cc":
        return float(np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(combined[:, 0], targets, strict=True)]))
    p, t = combined.transpose(0, 2, 1)[targets != 255], targets[targets != 255]
    if metric == "nll":
        return float(np.log(p[np.arange(len(t)), t]).mean())
    result = p.argmax(1)
    return float(np.mean([((result == k) & (t == k)).sum() / ((result == k) | (t == k)).sum() for k in range(3)]))


def brute_greedy(metric: str, held: HeldOut, rounds: int) -> tuple[list[int], float]:
    maps = stacked(held)
    taken: list[int] = []
    path: list[float] = []
    for _ in range(rounds):
        scores = [brute_score(metric, maps[[*taken, number]].mean(0), held) for number in range(len(maps))]
        tied = [number for number, score in enumerate(scores) if np.isclose(score, max(scores), rtol=1e-7, atol=0)]
        taken.append(next((number for number in tied if number in taken), tied[0]))
        path.append(scores[taken[-1]])
    first = next(n for n, score in enumerate(path) if np.isclose(score, max(path), rtol=1e-7, atol=0))
    return taken[: first + 1], path[first]


def objective_of(metric: str):
    return TASKS[metric].objective(metric)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("metric", TASKS)
def test_greedy_equals_brute_force(metric: str, seed: int) -> None:
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4, 1.4, 2.0), seed=seed)
    order, score = brute_greedy(metric, held, 12)
    result = greedy(held, objective_of(metric), rounds=12, patience=12)
    assert list(result.order) == order
    sign = 1 if objective_of(metric).higher_is_better else -1
    assert sign * result.score == pytest.approx(score, rel=1e-6)
    assert result.weights == pytest.approx(np.bincount(order, minlength=5) / len(order))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", TASKS)
def test_greedy_equals_autogluon(metric: str, seed: int) -> None:
    """AutoGluon breaks ties at random and rounds scores to 6 digits, so the data has no ties."""
    module = pytest.importorskip("autogluon.core.models.greedy_ensemble.ensemble_selection")
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4, 1.4, 2.0), images=30, seed=seed)

    class Theirs(module.EnsembleSelection):
        def _calculate_regret(self, y_true, y_pred_proba, metric, sample_weight=None):
            return 1 - brute_score(self.metric, y_pred_proba, held)

    theirs = Theirs(10, "regression", metric).fit(list(stacked(held)), np.zeros(len(held)))
    result = greedy(held, objective_of(metric), rounds=10, patience=10)
    assert result.weights == pytest.approx(theirs.weights_)
    assert list(result.order) == list(theirs.indices_)


@pytest.mark.parametrize("metric", TASKS)
def test_exhaustive_finds_the_best_subset(metric: str) -> None:
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4, 2.0))
    maps = stacked(held)
    scores = {
        subset: brute_score(metric, maps[list(subset)].mean(0), held)
        for size in range(1, 5)
        for subset in combinations(range(4), size)
    }
    result = exhaustive(held, objective_of(metric))
    assert abs(result.score) == pytest.approx(abs(max(scores.values())), rel=1e-6)
    assert scores[result.order] == pytest.approx(max(scores.values()), rel=1e-6)
    assert result.weights == tuple(float(number in result.order) / len(result.order) for number in range(4))


@pytest.mark.parametrize("metric", TASKS)
@pytest.mark.parametrize("strategy", ["greedy", "best", "exhaustive"])
def test_strategies_select_the_good_member(strategy: str, metric: str) -> None:
    held = small_set(TASKS[metric], (9.0, 0.05, 9.0))
    assert SELECT[strategy](held, objective_of(metric)).weights == (0, 1, 0)


@pytest.mark.parametrize("metric", TASKS)
def test_a_duplicate_does_not_change_the_score(metric: str) -> None:
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4))
    twice = replace(
        held, names=(*held.names, "again"), maps=(*held.maps, held.maps[0]), temperatures=(*held.temperatures, 1.0)
    )
    alone, result = greedy(held, objective_of(metric)), greedy(twice, objective_of(metric))
    assert result.weights == (*alone.weights, 0)


@pytest.mark.parametrize("metric", TASKS)
@pytest.mark.parametrize("strategy", SELECT)
def test_order_of_candidates_does_not_matter(strategy: str, metric: str) -> None:
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4, 2.0))
    turned = held.of(held.names[::-1])
    one, other = (SELECT[strategy](each, objective_of(metric)) for each in (held, turned))
    assert one.weights == pytest.approx(other.weights[::-1])
    assert one.score == pytest.approx(other.score, rel=1e-6)


def test_best_and_all() -> None:
    held = small_set(TASKS["mae"], (2.0, 0.5, 1.0))
    maps = stacked(held)
    one, every = best(held, objective_of("mae")), all_candidates(held, objective_of("mae"))
    assert one.weights == (0, 1, 0)
    assert one.score == pytest.approx(-brute_score("mae", maps[1], held), rel=1e-6)
    assert every.weights == pytest.approx((1 / 3,) * 3)
    assert every.score == pytest.approx(-brute_score("mae", maps.mean(0), held), rel=1e-6)


def test_temperatures_affect_the_selection() -> None:
    held = small_set(TASKS["nll"], (0.5, 0.5))
    cooled = held.tempered((1.0, 20.0))  # the second says nothing any more
    assert best(cooled, objective_of("nll")).weights == (1, 0)


def test_selection_uses_only_the_given_images() -> None:
    held = small_set(TASKS["mae"], (0.5, 1.0), images=4)
    one, two = arrays(held)
    crossed = [np.concatenate([a[:2], b[2:]]) for a, b in ((one, two), (two, one))]
    swapped = held_out(held.names, crossed, held.targets, held.task)
    assert best(swapped.only((0, 1)), objective_of("mae")).weights == (1, 0)
    assert best(swapped.only((3, 2)), objective_of("mae")).weights == (0, 1)


def test_too_many_subsets_raise() -> None:
    with pytest.raises(UsageError, match="11 candidates have 2047 subsets"):
        exhaustive(small_set(TASKS["mae"], (1.0,) * 11), objective_of("mae"))


@pytest.mark.parametrize("strategy", SELECT)
def test_an_undefined_objective_raises(strategy: str) -> None:
    held = small_set(TASKS["miou"], (1.0, 1.2), images=2)
    blank = replace(held, targets=[(torch.full(SIZE, 255), None)] * 2)
    with pytest.raises(DataError, match="'miou' is undefined on the 2 held-out images"):
        SELECT[strategy](blank, objective_of("miou"))


def test_gain_per_millisecond_selects_the_cheap_candidate_first() -> None:
    held = small_set(TASKS["mae"], (0.5, 0.55, 3.0), images=20)
    result = greedy_by_cost(held, objective_of("mae"), (50.0, 1.0, 1.0))
    assert result.order[0] == 1
    assert result.score <= best(held, objective_of("mae")).score


@pytest.mark.parametrize("budget", [1.0, 5.0, 7.0, 12.0, 100.0])
def test_a_budget_is_respected_and_used(budget: float) -> None:
    held = small_set(TASKS["nll"], (1.0, 1.2, 1.4, 3.0))
    costs = (10.0, 5.0, 2.0, 1.0)
    result = greedy_by_cost(held, objective_of("nll"), costs, budget)
    assert price(result.weights, costs) <= budget
    for number, cost in enumerate(costs):
        if cost <= budget:
            assert result.score <= best(held.of([held.names[number]]), objective_of("nll")).score + 1e-6
    if budget == 100:
        assert result.score <= greedy(held, objective_of("nll")).score + 1e-6


def test_a_budget_below_the_cheapest_candidate_raises() -> None:
    with pytest.raises(UsageError, match="'member1', needs 2 ms"):
        greedy_by_cost(small_set(TASKS["mae"], (1.0, 2.0)), objective_of("mae"), (3.0, 2.0), 1.5)


@pytest.mark.parametrize("metric", TASKS)
def test_pareto_front_rises_and_is_not_dominated(metric: str) -> None:
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4, 2.0, 3.0), images=8)
    objective, costs = objective_of(metric), (10.0, 8.0, 3.0, 2.0, 2.5)
    sign = 1 if objective.higher_is_better else -1
    front = pareto(held, objective, costs, rounds=8)
    assert [trade.milliseconds for trade in front] == sorted({trade.milliseconds for trade in front})
    assert [sign * trade.score for trade in front] == sorted({sign * trade.score for trade in front})
    assert front[0].members == ("member3",)
    others = [(best(held.of([name]), objective).score, cost) for name, cost in zip(held.names, costs, strict=True)]
    others += [
        (each(held, objective).score, price(each(held, objective).weights, costs))
        for each in (partial(greedy, rounds=8), all_candidates)
    ]
    for score, cost in others:
        assert any(sign * trade.score >= sign * score - 1e-6 and trade.milliseconds <= cost for trade in front)
    for trade in front:
        assert price(trade.weights, costs) == trade.milliseconds
        assert sum(trade.weights) == pytest.approx(1)


def test_nan_of_an_unselected_member_does_not_spread() -> None:
    held = small_set(SegmentationTask(("a", "b", "c")), (1.0, 1.2, 1.0))
    arrays(held)[2][:] = np.nan
    result = greedy(held, objective_of("nll"))
    assert result.weights[2] == 0
    assert np.isfinite(result.score)
