"""Trainings with a time limit: order, members that are left out, messages; fake members move the clock."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_run import SMALL_RUN

from densemble import run as run_module
from densemble.config import make_config
from densemble.engines import local, member, timed
from densemble.engines.budget import Budget, Cost
from densemble.engines.measuring import ScoringTimes, measure_scoring
from densemble.engines.member import Outcome
from densemble.engines.timed import ASSEMBLY_START, OWN_SCORES, train_within
from densemble.errors import WeightsError
from densemble.messages import shown

IMAGES, OWN = 10, 0.05
ASSEMBLY = 1.0
"""Of each member; 10 images are scored at their own size, a twentieth of a second each."""
FIXED = ASSEMBLY_START + OWN_SCORES * IMAGES * OWN


@dataclass
class World:
    """Members by number: seconds of an epoch of 60 steps; 10 epochs are asked for, so 3 of them are useful.

    Attributes:
        slowness: factor by which trainings take longer than was measured.
        broken: members that cannot be built; failing: members whose training fails.
        macs: of the members; default increasing.
    """

    epochs: list[float]
    slowness: float = 1.0
    broken: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()
    macs: dict[int, float] = field(default_factory=dict)
    now: float = 0.0
    built: list[int] = field(default_factory=list)
    shares: dict[int, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def build(self, training: Any, number: int) -> Any:
        if number in self.broken:
            raise WeightsError("no weights")
        self.built.append(number)
        self.now += 1
        return number

    def measure(self, number: int, *_: Any) -> Cost:
        return Cost(str(number), self.epochs[number] / 60, 60, 10, 0.0, 0.0, 0.0, ASSEMBLY)

    def train(self, training: Any, number: int, built: Any, seconds: float, ending: float) -> Outcome:
        assert built == number
        self.shares[number] = seconds
        self.now += min(seconds, 10 * self.epochs[number]) * self.slowness
        return Outcome(str(number), "failed" if number in self.failing else "done")

    def run(self, seconds: float, used: float = 0.0, kept: int = 0) -> dict[int, str]:
        """Outcomes of all members, with so many seconds used before they are built."""
        budget = Budget(seconds, started=-used, clock=lambda: self.now)
        training: Any = SimpleNamespace(
            task=None,
            config=SimpleNamespace(members=[None]),
            data=SimpleNamespace(val=[None] * IMAGES),
            name=str,
        )
        macs = self.macs or {number: float(number + 1) for number in range(len(self.epochs))}
        with shown(self.lines.append):
            train_within(budget, training, macs, kept, self.outcomes.__setitem__)
        return {number: outcome.state for number, outcome in sorted(self.outcomes.items())}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(*epochs: float, **options: Any) -> World:
        made = World(list(epochs), **options)
        monkeypatch.setattr(timed, "sizes", lambda config, member: ((8, 8), (8, 8), (4, 4)))
        monkeypatch.setattr(timed, "build_member", made.build)
        monkeypatch.setattr(timed, "_measure", made.measure)
        monkeypatch.setattr(timed, "train_member", made.train)
        monkeypatch.setattr(timed, "measure_scoring", lambda *_: ScoringTimes(OWN, 0.0, torch.zeros(1, 3, 4, 4)))
        failed = lambda training, number, error: Outcome(str(number), "failed", str(error), error)  # noqa: E731
        monkeypatch.setattr(timed, "record_failure", failed)
        return made

    return make


def test_enough_for_all(world: Any) -> None:
    made = world(1, 2, 3)
    assert made.run(1000) == {0: "done", 1: "done", 2: "done"}
    assert made.shares == {0: 10, 1: 20, 2: 30}, "all epochs, and no more"
    assert made.lines[0] == f"time: 1000 s; used so far 3 s; expected: training 60 s, assembly {FIXED + 3:.0f} s"
    assert made.lines[1] == "  0: 10 of 10 epochs in 10 s (1 s each)"


def test_the_time_before_the_first_member_counts(world: Any) -> None:
    seconds = 3 + 9 + 3 * 2 + FIXED + 3 * ASSEMBLY
    assert set(world(1, 1, 1).run(seconds + 3).values()) == {"done"}
    assert sorted(world(1, 1, 1).run(seconds + 3, used=10).values()) == ["done", "done", "left out"]


def test_the_dear_are_left_out_and_named(world: Any) -> None:
    made = world(1, 2, 30, 40, macs={0: 1, 1: 2, 2: 10, 3: 31})
    assert made.run(60) == {0: "done", 1: "done", 2: "left out", 3: "left out"}
    assert "  3: left out: not measured" in "\n".join(made.lines[:5]), "it computes more than three times as much as 2"
    assert sum(made.shares.values()) == pytest.approx(30), "both are trained for all their epochs"
    said = "\n".join(made.lines)
    assert "2: left out: a useful training (3 epochs) and its part of the assembly need 91 s" in said
    assert "3: left out: a useful training (3 epochs) and its part of the assembly need 121 s" in said
    assert made.outcomes[2].error and made.outcomes[3].error


def test_the_cheapest_is_found_although_it_computes_more(world: Any) -> None:
    """Multiply-accumulates are only a guide: the first member is slow, the third is not."""
    made = world(50, 60, 1, macs={0: 1, 1: 2, 2: 2.5})
    assert made.run(60) == {0: "left out", 1: "left out", 2: "done"}


def test_time_that_is_left_over_goes_to_members_that_were_not_measured(world: Any) -> None:
    made = world(10, 20, 1, macs={0: 1, 1: 2, 2: 7}, slowness=0.2)
    assert made.run(60) == {0: "done", 1: "left out", 2: "done"}
    assert "  2: left out: not measured" in "\n".join(made.lines), "was expected before the first member"


def test_measuring_ends_when_it_has_taken_a_quarter_of_the_time(world: Any) -> None:
    made = world(*[50] * 20, macs=dict.fromkeys(range(20), 1.0))
    made.run(41)
    assert made.built[:11] == list(range(11)), "a second each, and 10.25 s may be measured"
    assert sum("left out: not measured" in line for line in made.lines) >= 9


def test_a_machine_that_becomes_busy_costs_members_not_epochs(world: Any) -> None:
    made = world(2, 2, 2, 2, slowness=3.0)
    states = made.run(50)
    assert made.lines[0].startswith("time: 50 s") and not any("left out" in line for line in made.lines[:5])
    assert list(states.values()).count("done") < 4 and set(states.values()) == {"done", "left out"}
    assert all(share >= 6 for share in made.shares.values()), "who is trained, is trained usefully"


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_always_one(world: Any, seconds: float) -> None:
    assert world(20, 30).run(seconds, used=5) == {0: "done", 1: "left out"}


def test_none_where_some_are_trained_already(world: Any) -> None:
    assert world(20, 30).run(10, kept=2) == {0: "left out", 1: "left out"}


def test_members_that_fail_leave_their_time_to_the_others(world: Any) -> None:
    made = world(1, 2, 3, broken=(0,), failing=(1,))
    assert made.run(35) == {0: "failed", 1: "failed", 2: "done"}
    assert made.outcomes[0].error == "no weights"


@pytest.mark.parametrize(("seconds", "line"), [(90, "took 85 s of 90 s"), (60, "took 85 s of 60 s"), (None, None)])
def test_the_end_says_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str], seconds: float | None, line: str | None
) -> None:
    """5 s before the command's first line of work, 60 s of training, 20 s of assembly."""
    now = [105.0]

    def spend(seconds: float, result: Any = None) -> Any:
        now[0] += seconds
        return result

    run = SimpleNamespace(
        assemble=lambda: spend(20, SimpleNamespace(metrics={"val": {"cc": 0.5}}, members=["a"])),
        folder=SimpleNamespace(artifact=tmp_path / "a", report=tmp_path / "r"),
        cross_fitted=list,
    )
    monkeypatch.setattr(local, "train_members", lambda *_: spend(60, [Outcome("a", "done"), Outcome("b", "left out")]))
    monkeypatch.setattr(run_module, "Run", lambda *_: run)
    for name in ("save", "warn_of_baselines", "remove_leftovers"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    budget = Budget(seconds, started=100.0, clock=lambda: now[0])
    data: Any = SimpleNamespace(path=tmp_path, reading=SimpleNamespace(options={"heat_max": None}))
    run_module.run_members(data, make_config(SMALL_RUN), tmp_path, False, budget)
    assert (lines[-1] if lines[-1].startswith("took") else None) == line


def test_images_that_do_not_fit_into_gpu_memory_are_predicted_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """The meta device stands for a GPU whose memory is short."""
    devices: list[str] = []

    def predict(model: torch.nn.Module, *_: Any) -> Any:
        devices.append(next(model.parameters()).device.type)
        if devices[-1] != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "maps", "scores"

    class Network(torch.nn.Linear):
        def to(self, device: str) -> Any:
            return torch.nn.Linear(1, 1, device="meta") if device == "cuda" else self

    monkeypatch.setattr(member, "predict_split", predict)
    training: Any = SimpleNamespace(task=None, data=None)
    network: Any = Network(1, 1)
    assert member._predict(training, network, "cuda", (4, 4)) == ("maps", "scores")
    assert devices == ["meta", "cpu"] and "predicted on the CPU" in lines[0]


def test_costs_are_measured_and_leave_the_model_as_it_was(scenes: Path, tmp_path: Path) -> None:
    from small_run import SMALL_RUN

    from densemble.config import make_config
    from densemble.data.folder import FolderData
    from densemble.engines.member import Training, build_member
    from densemble.storage.runs import RunFolder

    data = FolderData(scenes, "saliency")
    training = Training(data, data.task, make_config(SMALL_RUN), RunFolder(tmp_path))
    scoring = measure_scoring(data.task, data, (12, 16), time.monotonic)
    assert scoring.own > 0 < scoring.kept and scoring.image.shape == (1, 3, 48, 64)
    for number in range(2):
        built = build_member(training, number)
        before = {key: value.clone() for key, value in built.model.state_dict().items()}
        cost = timed._measure(built, scoring, Budget(60))
        assert all(torch.equal(value, before[key]) for key, value in built.model.state_dict().items())
        assert cost.steps == 3 and cost.epochs == 2, "24 images in batches of 8"
        assert min(cost.step, cost.validation, cost.ending, cost.assembly) > 0 and cost.start == 0
