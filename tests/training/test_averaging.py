"""Averaged weights against means computed from the recorded steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from small_training import SETTINGS, Fit, last_weights, member_folder, replace
from torch import Tensor

from densemble.training.averaging import DECAY
from densemble.training.callbacks import read_rows

Weights = dict[str, Tensor]


def snapshot(module: Any) -> Weights:
    return {key: value.detach().double().clone() for key, value in module.model.state_dict().items()}


class Recorder(Callback):
    """Records the weights after every step, the validated weights, and the number of steps at each validation."""

    def __init__(self) -> None:
        self.steps: list[Weights] = []
        self.validated: list[Weights] = []
        self.ends: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step > len(self.steps):
            self.steps.append(snapshot(pl_module))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.validated.append(snapshot(pl_module))
        self.ends.append(len(self.steps))


def require_same(weights: Weights, expected: Weights) -> None:
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        if value.is_floating_point() and not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(weights[key].double(), value, atol=2e-5, rtol=1e-4)


def moving_average(steps: list[Weights]) -> Weights:
    average = steps[0]
    for number, current in enumerate(steps[1:], start=1):
        decay = min(DECAY, (1 + number) / (10 + number))
        average = {key: decay * average[key] + (1 - decay) * value for key, value in current.items()}
    return average


def mean_of(weights: list[Weights]) -> Weights:
    return {key: torch.stack([state[key] for state in weights]).mean(0) for key in weights[0]}


def check_kept(run: Path, recorder: Recorder, expected: list[Weights]) -> None:
    """Check that the expected weights were validated after every epoch, and saved after the best and last epoch."""
    assert len(recorder.validated) == len(expected)
    for validated, expected_state in zip(recorder.validated, expected, strict=True):
        require_same(validated, expected_state)
    rows = read_rows(member_folder(run).metrics)
    best = max(range(len(rows)), key=lambda epoch: rows[epoch]["val_cc"])
    require_same(load_file(member_folder(run).weights), expected[best])
    require_same(last_weights(run), expected[-1])


@pytest.mark.parametrize("accumulated", [False, True])
def test_moving_average_over_steps(
    fit: Fit, tmp_path: Path, accumulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if accumulated:  # as after a batch that did not fit into memory
        monkeypatch.setattr("densemble.training.fit._fit_once", with_accumulation(2))
    recorder = Recorder()
    fit(tmp_path, replace(SETTINGS, averaging="ema", batch_size=4, learning_rate=1e-2), watch=(recorder,))
    assert recorder.ends == ([3, 6] if accumulated else [6, 12])
    expected = [moving_average(recorder.steps[:end]) for end in recorder.ends]
    check_kept(tmp_path, recorder, expected)
    name = "head.logits.weight"
    assert not torch.allclose(expected[-1][name], recorder.steps[-1][name], atol=1e-4), (
        "the average differs from the last weights"
    )


def with_accumulation(count: int) -> Any:
    from densemble.training import fit

    fit_once = fit._fit_once

    return lambda job, start, _, *more: fit_once(job, start, count, *more)


@pytest.mark.parametrize(("epochs", "first"), [(4, 3), (5, 4), (1, 1)])
def test_mean_of_the_last_quarter(fit: Fit, tmp_path: Path, epochs: int, first: int) -> None:
    recorder = Recorder()
    fit(tmp_path, replace(SETTINGS, averaging="swa", epochs=epochs, learning_rate=1e-2), watch=(recorder,))
    ends = [recorder.steps[end - 1] for end in recorder.ends]
    expected = [end if epoch < first else mean_of(ends[first - 1 : epoch]) for epoch, end in enumerate(ends, start=1)]
    check_kept(tmp_path, recorder, expected)
