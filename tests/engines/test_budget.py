"""Budgets, with a clock that is moved by hand."""

import pytest

from densemble.engines import budget
from densemble.engines.budget import ASSEMBLY, Budget


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [500.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    return now


def test_without_end() -> None:
    assert Budget(None).share(3) is None and not Budget(None).limited


def test_shares_by_hand(clock: list[float]) -> None:
    given = Budget(100)
    assert given.limited and given.share(4) == pytest.approx(100 * (1 - ASSEMBLY) / 4)
    clock[0] += 50
    assert given.share(2) == pytest.approx((92 - 50) / 2)
    clock[0] += 45
    assert given.share(1) == 1.0, "a member that comes too late still gets a second"


@pytest.mark.parametrize("used", [1.0, 0.4])
def test_what_early_members_leave_over_goes_to_later_ones(clock: list[float], used: float) -> None:
    given, shares = Budget(1000), []
    for waiting in (3, 2, 1):
        share = given.share(waiting)
        assert share is not None
        shares.append(share)
        clock[0] += used * share
    assert clock[0] - 500 <= 1000 * (1 - ASSEMBLY) + 1e-6
    if used == 1:
        assert shares == pytest.approx([920 / 3] * 3)
    else:
        assert shares[0] < shares[1] < shares[2]
