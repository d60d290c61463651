"""The time limit of one training, with a fake clock."""

from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_training import SETTINGS, Fit, member_folder, replace

from densemble.training import fit as fitting
from densemble.training.callbacks import TimeLimit, read_rows

BATCH = (torch.zeros(4, 3, 2, 2), torch.zeros(4, 2, 2))


class FakeTraining:
    """A fake clock, and a trainer that can be stopped."""

    def __init__(self, seconds: float, held_out: int) -> None:
        self.now = 50.0
        self.trainer: Any = SimpleNamespace(
            should_stop=False, strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
        )
        self.limit = TimeLimit(seconds, held_out, lambda: self.now)

    def batch(self, seconds: float) -> bool:
        """Run one training step; return whether the training stops after it."""
        self.limit.on_train_batch_start()
        self.now += seconds
        self.limit.on_train_batch_end(self.trainer, None, None, BATCH)
        return bool(self.trainer.should_stop)

    def validation(self, seconds: float) -> None:
        self.limit.on_validation_start()
        self.now += seconds
        self.limit.on_validation_end()


def test_the_first_epoch_stops_in_time_for_its_validation() -> None:
    training = FakeTraining(20, held_out=10)
    stops = [training.batch(2.0) for _ in range(9)]
    # A step of 4 images takes 2 s; a validation of 10 images is estimated as 1.2 * 10 * 0.5 / 3 = 2 s.
    assert training.limit.reserve == pytest.approx(2.0) and stops == [False] * 9
    assert training.batch(2.0)


def test_a_measured_validation_replaces_the_guess() -> None:
    training = FakeTraining(20, held_out=10)
    training.batch(2.0)
    training.validation(7.0)
    assert training.limit.reserve == 7 and not training.batch(4.0)
    assert training.batch(0.1), "13.1 s are over, 7 s are needed"


def test_no_epoch_starts_when_only_its_validation_fits() -> None:
    training = FakeTraining(20, held_out=10)
    training.batch(2.0)
    training.validation(10.0)
    training.limit.on_train_epoch_end(training.trainer, None)  # type: ignore[arg-type]
    assert training.trainer.should_stop


@pytest.mark.parametrize(("seconds", "epochs"), [(0.5, 1), (60.0, 2)])
def test_an_interrupted_epoch_gives_a_usable_member(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, epochs: int
) -> None:
    """Every read of the clock takes a second: an epoch of 12 steps takes 39 s."""
    ticks = count()
    monkeypatch.setattr(fitting, "TimeLimit", partial(TimeLimit, clock=lambda: float(next(ticks))))
    steps: list[int] = []

    class Steps(fitting.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            steps.append(trainer.current_epoch)

    monkeypatch.setattr(fitting, "_seconds_left", lambda settings, started: settings.seconds)
    settings = replace(SETTINGS, epochs=1000, batch_size=2, seconds=seconds)
    fitted = fit(tmp_path, settings, watch=(Steps(),))
    assert fitted["epochs"] == epochs == len(read_rows(member_folder(tmp_path).metrics))
    assert steps.count(epochs - 1) < 24 // 2, "the last epoch was interrupted"
    assert member_folder(tmp_path).weights.is_file()
