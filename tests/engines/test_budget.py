"""Budgets and plans against values computed by hand, with a fake clock."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densemble.engines.budget import (
    ENOUGH_STEPS,
    FEWEST_STEPS,
    SHORTEST,
    Budget,
    Cost,
    format_seconds,
    make_plan,
)

TEN = Cost("ten", step=1.0, steps=10, epochs=12, validation=0.0, start=0.0, ending=0.0, assembly=0.0)
"""Epochs of 10 steps of a second: a useful training is 6 epochs (60 steps), all epochs take 120 s."""


def named(name: str, factor: float, **changes: object) -> Cost:
    return replace(TEN, name=name, step=factor, **changes)


def test_the_clock_runs_from_the_start_of_the_command() -> None:
    now = [500.0]
    budget = Budget(90, started=480.0, clock=lambda: now[0])
    assert (budget.used, budget.left) == (20, 70)
    now[0] += 100
    assert (budget.used, budget.left) == (120, -30)
    assert Budget(90, clock=lambda: now[0]).used == 0


def test_without_limit() -> None:
    budget = Budget(None)
    assert budget.left == float("inf")


@pytest.mark.parametrize(
    ("steps", "epochs", "useful"),
    [
        (10, 12, 6),  # 3 epochs would be 30 steps: fewer than 60
        (100, 12, 3),
        (100, 2, 2),  # no more than requested
        (4, 8, 8),  # 60 steps are 15 epochs
        (4000, 12, 0.25),  # 1000 steps are enough
    ],
)
def test_useful_epochs_by_hand(steps: int, epochs: int, useful: float) -> None:
    assert replace(TEN, steps=steps, epochs=epochs).useful_epochs == useful
    assert (FEWEST_STEPS, ENOUGH_STEPS) == (60, 1000)


def test_cost_by_hand() -> None:
    cost = Cost("a", step=0.5, steps=20, epochs=10, validation=2.0, start=3.0, ending=4.0, assembly=5.0)
    assert cost.epoch == 12 and cost.least == 7 + 3 * 12 and cost.most == 7 + 10 * 12
    assert cost.epochs_in(7 + 30) == 2.5 and cost.epochs_in(3) == 0 and cost.epochs_in(1000) == 10
    short = replace(cost, steps=4000)
    assert short.least == 7 + 1000 * 0.5 + 2.0, "a quarter of an epoch is validated like a full one"


def test_a_scaled_cost_keeps_the_seconds_after_the_training() -> None:
    cost = Cost("a", step=0.5, steps=20, epochs=10, validation=2.0, start=3.0, ending=4.0, assembly=5.0)
    slow = cost.scaled(3.0)
    assert slow.epoch == 3 * 12 and slow.fixed == 3 * 3 + 4 and slow.assembly == 5
    assert cost.scaled(1.0) == cost


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.046, "0.05 s"), (0.999, "1.0 s"), (4.21, "4.2 s"), (9.96, "10 s"), (160.4, "160 s"), (1.6e5, "160000 s")],
)
def test_durations_have_no_exponent(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_time_left_after_all_epochs_extends_the_limits_equally() -> None:
    plan = make_plan([named("a", 1.0), named("b", 2.0)], 120 + 240 + 30)
    assert [(share.seconds, share.limit) for share in plan.shares] == [(120, 127.5), (240, 247.5)]
    short = make_plan([named("a", 1.0), named("b", 2.0)], 220)
    assert all(share.limit == share.seconds for share in short.shares)


def test_spare_time_is_shared_equally() -> None:
    plan = make_plan([named("b", 2.0), named("a", 1.0)], 60 + 120 + 40)
    assert [share.cost.name for share in plan.shares] == ["a", "b"] and not plan.left_out
    assert [share.seconds for share in plan.shares] == [60 + 20, 120 + 20]


def test_spare_time_of_a_cheap_member_goes_to_the_others() -> None:
    plan = make_plan([named("a", 1.0, epochs=7), named("b", 2.0)], 60 + 120 + 40)
    assert [share.seconds for share in plan.shares] == [70, 120 + 30]


def test_the_most_expensive_members_are_left_out() -> None:
    """Seven members in 150 s: instead of one epoch each for the slow four, the fast three get useful trainings."""
    costs = [named(str(factor), factor) for factor in (3.0, 0.2, 5.0, 0.5, 1.0, 4.0, 2.0)]
    plan = make_plan(costs, 150)
    assert [share.cost.name for share in plan.shares] == ["0.2", "0.5", "1.0"]
    assert [cost.name for cost in plan.left_out] == ["2.0", "3.0", "4.0", "5.0"]
    assert plan.spare == 150 - 60 * (0.2 + 0.5 + 1.0)
    assert sum(share.seconds for share in plan.shares) == pytest.approx(150)


def test_the_assembly_is_part_of_the_cost() -> None:
    costs = [named("a", 1.0, assembly=10.0), named("b", 1.5, assembly=10.0)]
    assert len(make_plan(costs, 60 + 10 + 90 + 10).shares) == 2
    plan = make_plan(costs, 60 + 10 + 90 + 9)
    assert [share.cost.name for share in plan.shares] == ["a"] and plan.assembly == 10
    assert plan.shares[0].seconds == 120, "all its epochs"


@pytest.mark.parametrize(("seconds", "share"), [(30.0, 20.0), (10.5, SHORTEST), (-50.0, SHORTEST)])
def test_one_member_is_trained_even_without_time(seconds: float, share: float) -> None:
    costs = [named("b", 2.0), named("a", 1.0, assembly=10.0)]
    plan = make_plan(costs, seconds)
    assert [(planned.cost.name, planned.seconds) for planned in plan.shares] == [("a", share)]
    assert [cost.name for cost in plan.left_out] == ["b"]
    assert make_plan(costs, seconds, require_one=False).shares == ()


COSTS = st.lists(
    st.builds(
        Cost,
        name=st.uuids().map(str),
        step=st.floats(0.01, 3),
        steps=st.integers(1, 3000),
        epochs=st.integers(0, 60),
        validation=st.floats(0, 20),
        start=st.floats(0, 20),
        ending=st.floats(0, 20),
        assembly=st.floats(0, 20),
    ),
    min_size=1,
    max_size=8,
)


@given(costs=COSTS, seconds=st.floats(0, 3000))
def test_every_plan_fits_into_the_time_and_trains_usefully(costs: list[Cost], seconds: float) -> None:
    plan = make_plan(costs, seconds, require_one=False)
    assert sum(share.limit for share in plan.shares) + plan.assembly <= seconds + 1e-6
    assert all(share.limit >= share.seconds for share in plan.shares)
    for share in plan.shares:
        assert share.cost.least - 1e-6 <= share.seconds <= share.cost.most + 1e-6
    assert sorted([share.cost.name for share in plan.shares] + [cost.name for cost in plan.left_out]) == sorted(
        cost.name for cost in costs
    )
    if plan.left_out:
        assert plan.left_out[0].least + plan.left_out[0].assembly > plan.spare
