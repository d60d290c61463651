"""Trainings with a time limit: order, members left out, messages. Fake members advance a fake clock."""

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
from densemble.engines.member_cost import measure_cost
from densemble.engines.plan import Sizes
from densemble.engines.timed import ASSEMBLY_START, FULL_SIZE_SCORES, train_within
from densemble.messages import shown

IMAGES, SCORING = 10, 0.05
"""Number of validation images, and seconds to score one at its full size."""
ASSEMBLY = 1.0
"""Assembly seconds of each member."""
FIXED = ASSEMBLY_START + FULL_SIZE_SCORES * IMAGES * SCORING


@dataclass
class FakeRun:
    """A run of 10 epochs of 60 steps; 3 epochs are a useful training.

    Attributes:
        epochs: seconds of an epoch, by member.
        slowness: factor between the training time and its measurement.
        shares, limits: seconds that each training took, and that it was allowed to take.
        broken: members that cannot be built.
        failing: members whose training fails.
        macs: multiply-accumulates by member; default increasing.
    """

    epochs: list[float]
    slowness: float = 1.0
    broken: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()
    macs: dict[int, float] = field(default_factory=dict)
    monkeypatch: Any = None
    now: float = 0.0
    built: list[int] = field(default_factory=list)
    shares: dict[int, float] = field(default_factory=dict)
    limits: dict[int, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def measure(self, training: Any, number: int, *_: Any) -> Cost | Outcome:
        if number in self.broken:
            return Outcome(str(number), "failed", "no weights")
        self.built.append(number)
        self.now += 1
        return Cost(str(number), self.epochs[number] / 60, 60, 10, 0.0, 0.0, 0.0, ASSEMBLY)

    def train(self, training: Any, number: int, seconds: float, *_: float) -> Outcome:
        epoch = self.epochs[number] * self.slowness
        self.limits[number], self.shares[number] = seconds, min(seconds, 10 * epoch)
        self.now += self.shares[number]
        if number in self.failing:
            return Outcome(str(number), "failed")
        return Outcome(str(number), "done", epochs=self.shares[number] / epoch)

    def run(self, seconds: float, used: float = 0.0, kept: int = 0) -> dict[int, str]:
        """Return the states of all members; ``used`` seconds pass before they are built."""
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
def fake_run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(*epochs: float, **options: Any) -> FakeRun:
        fake = FakeRun(list(epochs), **options, monkeypatch=monkeypatch)
        monkeypatch.setattr(timed, "sizes", lambda config, member: Sizes((8, 8), (8, 8), (4, 4)))
        monkeypatch.setattr(timed, "measure_isolated", fake.measure)
        monkeypatch.setattr(timed, "train_isolated", fake.train)
        monkeypatch.setattr(timed, "crashed_last", lambda training, indices: indices)
        monkeypatch.setattr(timed, "measure_scoring", lambda *_: ScoringTimes(SCORING, 0.0, torch.zeros(1, 3, 4, 4)))
        return fake

    return make


def test_enough_for_all(fake_run: Any) -> None:
    fake = fake_run(1, 2, 3)
    assert fake.run(1000) == {0: "done", 1: "done", 2: "done"}
    assert fake.shares == {0: 10, 1: 20, 2: 30}, "all epochs, and no more"
    assert fake.lines[0] == f"time: 1000 s; used so far 3 s; expected: training 60 s, assembly {FIXED + 3:.0f} s"
    assert fake.lines[1] == "  0: 10 of 10 epochs in 10 s (1.0 s each)"


def test_the_time_before_the_first_member_counts(fake_run: Any) -> None:
    seconds = 3 + 9 + 3 * 2 + FIXED + 3 * ASSEMBLY
    assert set(fake_run(1, 1, 1).run(seconds + 3).values()) == {"done"}
    assert sorted(fake_run(1, 1, 1).run(seconds + 3, used=10).values()) == ["done", "done", "left out"]


def test_expensive_members_are_left_out_with_a_reason(fake_run: Any) -> None:
    fake = fake_run(1, 2, 30, 40, macs={0: 1, 1: 2, 2: 10, 3: 31})
    assert fake.run(60) == {0: "done", 1: "done", 2: "left out", 3: "left out"}
    assert "  3: left out: not measured" in "\n".join(fake.lines[:5]), "it computes more than three times as much as 2"
    assert sum(fake.shares.values()) == pytest.approx(30), "both are trained for all epochs"
    text = "\n".join(fake.lines)
    assert "2: left out: a useful training (3 epochs) and its part of the assembly need 91 s" in text
    assert "3: left out: a useful training (3 epochs) and its part of the assembly need 121 s" in text
    assert fake.outcomes[2].error and fake.outcomes[3].error


def test_a_cheap_member_with_more_macs_is_trained(fake_run: Any) -> None:
    """Multiply-accumulates only give the order of measuring: the first member is slow, the third is not."""
    fake = fake_run(50, 60, 1, macs={0: 1, 1: 2, 2: 2.5})
    assert fake.run(60) == {0: "left out", 1: "left out", 2: "done"}


def test_spare_time_goes_to_unmeasured_members(fake_run: Any) -> None:
    fake = fake_run(10, 50, 1, macs={0: 1, 1: 2, 2: 7}, slowness=0.4)
    assert fake.run(60) == {0: "done", 1: "left out", 2: "done"}
    assert "  2: left out: not measured" in "\n".join(fake.lines), "as estimated before the first training"


def test_members_left_out_are_taken_up_again_if_trainings_are_faster_than_measured(fake_run: Any) -> None:
    """Measured: 52 of 100 s for member 0, and 60 s for a useful training of member 1. True: a fifth of it."""
    fake = fake_run(10, 20, 1, macs={0: 1, 1: 2, 2: 7}, slowness=0.2)
    assert fake.run(60) == {0: "done", 1: "done", 2: "done"}
    text = "\n".join(fake.lines)
    assert "  1: left out: a useful training (3 epochs) and its part of the assembly need 61 s" in text
    assert "\n1: fits into the time after all; trainings took 20% of the time expected for their epochs" in text
    assert fake.now + FIXED + 3 * ASSEMBLY <= 60


def test_the_speed_of_finished_trainings_decides_about_the_next_ones(fake_run: Any) -> None:
    """Three times as slow as measured: a useful training of member 1 takes 54 s instead of 18 s.

    30 s of training: 3 + 18 s for useful trainings, and 4.5 s more for each.
    """
    fake = fake_run(1, 6, slowness=3.0)
    assert fake.run(2 + 30 + FIXED + 2 * ASSEMBLY) == {0: "done", 1: "left out"}
    assert fake.shares == {0: 7.5} and "need 55 s" in (fake.outcomes[1].error or "")


@pytest.mark.parametrize("slowness", [0.1, 0.5, 1.0, 2.0, 5.0])
def test_the_limit_is_kept_at_any_speed(fake_run: Any, slowness: float) -> None:
    """The machine becomes slower after the first training, whose speed makes the estimates of the others too low."""
    fake = fake_run(1, 2, 3, 4, slowness=0.2)
    train = fake.train

    def slower(*arguments: Any) -> Outcome:
        outcome = train(*arguments)
        fake.slowness = slowness
        return outcome

    fake.monkeypatch.setattr(timed, "train_isolated", slower)
    states = list(fake.run(60).values())
    assert fake.now + FIXED + states.count("done") * ASSEMBLY <= 60
    assert all(fake.shares[number] <= fake.limits[number] for number in fake.shares)


def test_time_that_is_left_after_all_epochs_is_a_reserve_for_slow_trainings(fake_run: Any) -> None:
    """Trainings of 10 and 20 s take 20 and 40 s, within the limit of 100 s, and run to their last epoch."""
    fake = fake_run(1, 2, slowness=2.0)
    assert fake.run(100) == {0: "done", 1: "done"} and fake.shares == {0: 20, 1: 40}


def test_measuring_takes_at_most_a_quarter_of_the_time(fake_run: Any) -> None:
    fake = fake_run(*[50] * 20, macs=dict.fromkeys(range(20), 1.0))
    fake.run(41)
    assert fake.built[:11] == list(range(11)), "one second each, and measuring may take 10.25 s"
    assert sum("left out: not measured" in line for line in fake.lines) >= 9


def test_a_slow_machine_trains_fewer_members_not_fewer_epochs(fake_run: Any) -> None:
    fake = fake_run(2, 2, 2, 2, slowness=3.0)
    states = fake.run(50)
    assert fake.lines[0].startswith("time: 50 s") and not any("left out" in line for line in fake.lines[:5])
    assert list(states.values()).count("done") < 4 and set(states.values()) == {"done", "left out"}
    assert all(share >= 6 for share in fake.shares.values()), "every training is useful"


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_at_least_one_member_is_trained(fake_run: Any, seconds: float) -> None:
    assert fake_run(20, 30).run(seconds, used=5) == {0: "done", 1: "left out"}


def test_without_time_none_is_added_to_trained_members(fake_run: Any) -> None:
    assert fake_run(20, 30).run(10, kept=2) == {0: "left out", 1: "left out"}


def test_the_time_of_failed_members_goes_to_the_others(fake_run: Any) -> None:
    fake = fake_run(1, 2, 3, broken=(0,), failing=(1,))
    assert fake.run(35) == {0: "failed", 1: "failed", 2: "done"}
    assert fake.outcomes[0].error == "no weights"


@pytest.mark.parametrize(("seconds", "line"), [(90, "took 85 s of 90 s"), (60, "took 85 s of 60 s"), (None, None)])
def test_the_last_line_reports_the_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str], seconds: float | None, line: str | None
) -> None:
    """5 s of start-up, 60 s of training, 20 s of assembly."""
    now = [105.0]

    def spend(seconds: float, result: Any = None) -> Any:
        now[0] += seconds
        return result

    run = SimpleNamespace(
        task=SimpleNamespace(primary="cc"),
        assemble=lambda: spend(20, SimpleNamespace(metrics={"val": {"cc": 0.5}}, members=["a"])),
        folder=SimpleNamespace(artifact=tmp_path / "a", report=tmp_path / "r"),
        cross_fitted=list,
        baselines=dict,
    )
    monkeypatch.setattr(
        local, "train_members", lambda *_, **__: spend(60, [Outcome("a", "done"), Outcome("b", "left out")])
    )
    monkeypatch.setattr(run_module, "Run", lambda *_: run)
    for name in ("save", "warn_about_baselines", "remove_leftovers"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    budget = Budget(seconds, started=100.0, clock=lambda: now[0])
    data: Any = SimpleNamespace(path=tmp_path, reading=SimpleNamespace(options={"heat_max": None}))
    run_module.run_members(data, make_config(SMALL_RUN), tmp_path, False, budget)
    assert next((line for line in lines if line.startswith("took")), None) == line
    assert lines[-1] == (
        "1 of 2 members was not trained for lack of time: b; train it with "
        f"`densemble train {tmp_path} -o {tmp_path} --resume`, in Python with resume=True"
    )


def test_the_command_that_trains_members_left_out(lines: list[str]) -> None:
    """Paths are quoted for the shell, and code of the user is allowed again."""
    outcomes = [Outcome("a", "kept"), Outcome("b", "left out"), Outcome("c", "left out")]
    member.report_left_out(outcomes, Path("my data"), Path("runs/a"), ["nets:Tiny"])
    assert lines == [
        "2 of 3 members were not trained for lack of time: b, c; train them with "
        "`densemble train 'my data' -o runs/a --resume --function nets:Tiny`, in Python with resume=True"
    ]
    member.report_left_out(outcomes[:1], Path("my data"), Path("runs/a"), [])
    assert len(lines) == 1


def test_images_that_do_not_fit_into_gpu_memory_are_predicted_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """The meta device stands for a GPU with too little memory."""
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
    assert scoring.full_size > 0 < scoring.stored_size and scoring.image.shape == (1, 3, 48, 64)
    for number in range(2):
        built = build_member(training, number)
        before = {key: value.clone() for key, value in built.model.state_dict().items()}
        cost = measure_cost(built, scoring, 60.0, time.monotonic)
        assert all(torch.equal(value, before[key]) for key, value in built.model.state_dict().items())
        assert cost.steps == 3 and cost.epochs == 2, "24 images in batches of 8"
        assert min(cost.step, cost.validation, cost.ending, cost.assembly) > 0
        assert cost.start == built.build_seconds, "the training builds the member again"
