"""Cascade policies: selection from a Pareto front, and the uncertainties that stop images."""

import json
import math
from dataclasses import replace

import pytest
import torch

from densemble.ensemble.cascade import (
    Cascade,
    Check,
    Policy,
    cascade_use,
    kept_share,
    make_cascade,
    uncertainty_measures_for,
    unsureness,
)
from densemble.ensemble.uncertainty import RunningUncertainty
from densemble.errors import ArtifactError, UsageError
from densemble.tasks import RegressionTask, SaliencyTask, SegmentationTask

SHARES = {"small": 0.1, "middle": 0.3, "large": 0.6}


def policy(members: str, cost: float, score: float, kept: float | None, low: float | None, by: float = 0) -> Policy:
    return Policy(tuple(members.split()), "entropy", by, cost, score, kept, low)


def front(*policies: Policy, higher: bool = True, full: float = 0.8) -> Cascade:
    return Cascade("miou", higher, 20, full, SHARES, policies, (Check("keep", 0.995, 0.2, 0.99),))


FRONT = front(
    policy("small", 0.1, 0.60, 0.75, 0.70),
    policy("small middle", 0.25, 0.79, 0.9875, 0.97, by=0.5),
    policy("small middle", 0.4, 0.82, 1.025, 0.996),
    policy("small middle large", 1.0, 0.80, 1.0, 1.0),
)


@pytest.mark.parametrize(("budget", "cost"), [(0.1, 0.1), (0.3, 0.25), (0.4, 0.4), (1.0, 0.4)])
def test_a_budget_gives_the_best_affordable_policy(budget: float, cost: float) -> None:
    assert FRONT.for_budget(budget).cost == cost


def test_a_budget_gives_the_smallest_error_of_lower_is_better_metrics() -> None:
    errors = front(policy("small", 0.1, 3.0, 0.5, 0.4), policy("middle", 0.3, 2.0, 0.7, 0.6), higher=False)
    assert errors.for_budget(0.5).score == 2.0


@pytest.mark.parametrize("budget", [0, -1, 1.01, math.nan, math.inf])
def test_a_budget_must_be_a_share(budget: float) -> None:
    with pytest.raises(UsageError, match="share"):
        FRONT.for_budget(budget)


def test_a_budget_below_all_policies_names_the_cheapest() -> None:
    with pytest.raises(UsageError, match=r"'small' alone, costs 0\.1 "):
        FRONT.for_budget(0.05)


@pytest.mark.parametrize(("keep", "cost"), [(0.7, 0.1), (0.96, 0.25), (0.98, 0.4), (0.995, 0.4), (1.0, 1.0)])
def test_keep_uses_the_lower_bound(keep: float, cost: float) -> None:
    # 0.98: the second policy keeps 0.9875, but its lower bound is smaller.
    assert FRONT.for_keep(keep).cost == cost


def test_the_check_of_the_nearest_share_is_found() -> None:
    near, far, other = Check("keep", 0.98, 0.1, 0.9), Check("keep", 1.0, 0.2, 1.0), Check("budget", 0.99, 0.3, 0.8)
    checked = replace(FRONT, checks=(far, other, near))
    assert checked.check_near("keep", 0.985) == near and checked.check_near("keep", 1.2) == far
    assert checked.check_near("budget", 0.1) == other
    assert replace(FRONT, checks=(other,)).check_near("keep", 0.99) is None


def test_keep_adds_the_shortfall_of_the_checks() -> None:
    """The second policy's bound keeps 0.97; its 0.9875 is 0.97 + 0.0175."""
    for shortfall, cost in ((0.0174, 0.25), (0.0176, 0.4)):
        assert replace(FRONT, checks=(Check("keep", 1.0, 0.2, 1 - shortfall),)).for_keep(0.97).cost == cost


def test_keep_above_all_policies_names_the_highest_bound() -> None:
    with pytest.raises(UsageError, match="lower bounds of all policies are at most 1 of the full miou"):
        FRONT.for_keep(1.01)


def test_keep_is_undefined_for_a_negative_score() -> None:
    bare = [replace(p, kept=None, kept_low=None) for p in FRONT.policies]
    with pytest.raises(UsageError, match=r"-0\.2.*give a budget"):
        front(*bare, full=-0.2).for_keep(0.9)


def test_kept_shares() -> None:
    two = torch.tensor([0.9, -0.1], dtype=torch.float64)
    assert kept_share(two, torch.tensor([1.0, 1.0]), True).tolist() == [0.9, -0.1]
    assert kept_share(two, torch.tensor([0.0, -1.0]), True).isnan().all()
    errors = kept_share(torch.tensor([2.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]), False)
    assert errors[0] == 0.5 and errors[1] == 1 and 0 <= errors[2] < 1e-6


def test_description_survives_json() -> None:
    assert make_cascade(json.loads(json.dumps(FRONT.describe()))) == FRONT


@pytest.mark.parametrize(
    "change",
    [
        {"policies": []},
        {"policies": 3},
        {"shares": {"small": 1.0}},
        {"checks": [{"asked": "keep"}]},
        {"policies": [{**FRONT.describe()["policies"][0], "measure": "mood"}]},
        {"policies": [{**FRONT.describe()["policies"][0], "threshold": None}]},
        {"policies": [{**FRONT.describe()["policies"][0], "members": ["small", "small"]}]},
        {"more": 1},
    ],
)
def test_damaged_descriptions_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="cascade is damaged"):
        make_cascade({**FRONT.describe(), **change})


def test_unsureness_of_two_members_by_hand() -> None:
    # Two pixels of one Bernoulli channel: the members agree on the first and are certain of opposites on the second.
    first, second = torch.tensor([[[[0.5, 1.0]]]]), torch.tensor([[[[0.5, 0.0]]]])
    running = RunningUncertainty("bernoulli")
    running.add(first, 1.0)
    log2 = math.log(2)
    assert unsureness("entropy", first, running, "bernoulli", 1).item() == pytest.approx(log2 / 2)
    assert unsureness("mutual_information", first, running, "bernoulli", 1).item() == math.inf
    running.add(second, 1.0)
    mean = (first + second) / 2
    assert unsureness("entropy", mean, None, "bernoulli", 2).item() == pytest.approx(log2)
    assert unsureness("mutual_information", mean, running, "bernoulli", 2).item() == pytest.approx(log2 / 2)
    assert unsureness("variance", mean, running, "bernoulli", 2).item() == pytest.approx(0.25 / 2)


def test_values_have_no_entropy() -> None:
    assert uncertainty_measures_for(RegressionTask()) == ("variance",)
    assert "variance" not in uncertainty_measures_for(SaliencyTask()) and "variance" not in uncertainty_measures_for(
        SegmentationTask(("a",))
    )
    with pytest.raises(ValueError, match="no entropy"):
        unsureness("entropy", torch.ones(1, 1, 2, 2), None, "none", 1)


def test_use_counts_members_and_cost() -> None:
    three = policy("large small middle", 0.8, 0.8, 1.0, 1.0, by=0.1)
    use = cascade_use(torch.tensor([1, 3, 1, 2]), three, SHARES)
    assert use.images == (2, 1, 1) and use.shares == (0.5, 0.25, 0.25)
    assert use.members == 7 / 4
    assert use.cost == pytest.approx((0.6 + 1.0 + 0.6 + 0.7) / 4)
    both = use + cascade_use(torch.tensor([1, 1, 1, 1]), three, SHARES)
    assert both.images == (6, 1, 1) and both.cost == pytest.approx((use.cost + 0.6) / 2)


@pytest.mark.parametrize("values", [{"members": ()}, {"members": ("a", "a")}, {"measure": "mood"}, {"threshold": -1.0}])
def test_invalid_policies_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(FRONT.policies[0], **values)
