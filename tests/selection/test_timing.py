"""Milliseconds of candidates: interleaved rounds, medians, and stored times, with a fake clock."""

import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from densemble.selection import timing
from densemble.selection.timing import ENOUGH_SECONDS, MAX_ROUNDS, ROUNDS, measure, milliseconds, rounds_for
from densemble.storage.runs import RunFolder, read_json
from densemble.storage.writing import write_json


@pytest.fixture(autouse=True)
def real_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ROUNDS", ROUNDS)
    monkeypatch.setattr(timing, "ENOUGH_SECONDS", ENOUGH_SECONDS)


class Machine:
    """A clock, and calls with given seconds, multiplied by the current slowness of the machine."""

    def __init__(self) -> None:
        self.now = 100.0
        self.made: list[str] = []
        self.slowness: Callable[[int], float] = lambda count: 1.0

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds * self.slowness(len(self.made))
            self.made.append(name)

        return run


def test_every_round_makes_every_call_and_begins_with_the_next_one() -> None:
    machine = Machine()
    samples = measure({name: machine.call(name, 1.0) for name in "abc"}, machine.clock)
    rounds = ["".join(machine.made[start : start + 3]) for start in range(0, len(machine.made), 3)]
    assert rounds[:5] == ["abc", "bca", "abc", "bca", "cab"], "two rounds warm up"
    assert len(rounds) == 2 + ROUNDS and {len(taken) for taken in samples.values()} == {ROUNDS}


def test_warm_up_rounds_are_not_returned() -> None:
    machine = Machine()
    machine.slowness = lambda count: 50.0 if count < 4 else 1.0
    samples = measure({"a": machine.call("a", 0.1), "b": machine.call("b", 0.2)}, machine.clock)
    assert max(samples["a"]) == pytest.approx(0.1) and max(samples["b"]) == pytest.approx(0.2)


def test_a_slowing_machine_does_not_change_the_order() -> None:
    """Without interleaving, the faster call would be measured in the slow minute and appear slower."""
    machine = Machine()
    machine.slowness = lambda count: 1.0 + 0.5 * count
    samples = measure({"slow": machine.call("slow", 1.2), "fast": machine.call("fast", 1.0)}, machine.clock)
    ratio = statistics.median(samples["slow"]) / statistics.median(samples["fast"])
    assert ratio == pytest.approx(1.2, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [(0.01, MAX_ROUNDS), (0.1, 20), (1.0, ROUNDS), (8.5, 7), (10.0, 6), (25.0, 2), (300.0, 1)],
)
def test_rounds_by_hand(seconds: float, rounds: int) -> None:
    assert rounds_for(seconds) == rounds


class Spec(SimpleNamespace):
    def as_dict(self) -> dict[str, Any]:
        return {"backbone": self.backbone}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Candidates are calls whose seconds are the name of the backbone; views take twice as long."""
    machine = Machine()

    def call(candidate: Any, size: tuple[int, int]) -> Callable[[], None]:
        return machine.call(candidate.name, candidate.spec.backbone * (2 if candidate.view else 1))

    monkeypatch.setattr(timing, "_call", call)
    return machine


def candidate(name: str, seconds: float, view: str | None = None) -> Any:
    return SimpleNamespace(name=name, spec=Spec(backbone=seconds), view=view)


def test_equal_networks_and_views_are_measured_once_and_kept(tmp_path: Path, machine: Machine) -> None:
    run = RunFolder(tmp_path)
    some = [candidate("a", 0.25), candidate("copy of a", 0.25), candidate("a, hflip", 0.25, "hflip"), candidate("b", 1)]
    result = milliseconds(run, some, (4, 6), machine.clock)
    assert result == pytest.approx({"a": 250, "copy of a": 250, "a, hflip": 500, "b": 1000})
    assert len(set(machine.made)) == 3
    before = len(machine.made)
    assert milliseconds(run, some[:2], (4, 6), machine.clock) == pytest.approx({"a": 250, "copy of a": 250})
    assert len(machine.made) == before, "nothing new: nothing is measured"
    milliseconds(run, [*some, candidate("c", 2)], (4, 6), machine.clock)
    assert len(set(machine.made[before:])) == 4, "a new one is measured together with all others"
    milliseconds(run, some, (8, 6), machine.clock)
    assert len(machine.made) > before and read_json(run.milliseconds)["machine"].endswith("8x6")


def test_times_that_were_not_interleaved_are_measured_again(tmp_path: Path, machine: Machine) -> None:
    run = RunFolder(tmp_path)
    milliseconds(run, [candidate("a", 0.25)], (4, 6), machine.clock)
    old = read_json(run.milliseconds)
    write_json(run.milliseconds, {"machine": old["machine"], "milliseconds": {"a": 83.0}})
    assert milliseconds(run, [candidate("a", 0.25)], (4, 6), machine.clock) == pytest.approx({"a": 250})
