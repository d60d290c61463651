"""A probability of exactly 0.5 is a positive decision in all functions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from densemble.ensemble.combine.vote import vote
from densemble.ensemble.uncertainty import RunningUncertainty
from densemble.metrics import MultilabelMetrics, ScoredImage

HALF = 0.5
BELOW = torch.nextafter(torch.tensor(HALF), torch.tensor(0.0)).item()
MASK = torch.ones(1, 2, 3, dtype=torch.long)


def maps(value: float) -> Tensor:
    return torch.full((1, 1, 2, 3), value)


def by_metrics(value: float) -> float:
    metrics = MultilabelMetrics(1)
    metrics.update(maps(value)[0], MASK)
    scores = metrics.compute()
    assert scores["f1"] == scores["miou"]
    return float(scores["miou"])  # type: ignore[arg-type]


def by_objective(name: str) -> Callable[[float], float]:
    def decide(value: float) -> float:
        objective = MultilabelMetrics(1).objectives[name]
        return float(objective.value(objective.statistics(ScoredImage(maps(value), MASK))))

    return decide


def by_vote(value: float) -> float:
    votes = vote("bernoulli")
    votes.add(maps(value), 1.0)
    return float(votes.result().mean())


def by_disagreement(value: float) -> float:
    """1 if a member with this probability agrees with a member that predicts 0.9."""
    running = RunningUncertainty("bernoulli")
    running.add(maps(0.9), 1.0)
    running.add(maps(value), 1.0)
    disagreement = running.disagreement()
    assert disagreement is not None
    return 1 - 2 * float(disagreement.mean())


@pytest.mark.parametrize(
    "decision",
    [by_metrics, by_objective("miou"), by_objective("f1"), by_vote, by_disagreement],
    ids=["metrics", "objective miou", "objective f1", "vote", "disagreement"],
)
def test_one_half_is_positive_and_less_is_not(decision: Callable[[float], float]) -> None:
    assert (decision(HALF), decision(BELOW), decision(0.9), decision(0.1)) == (1.0, 0.0, 1.0, 0.0)
