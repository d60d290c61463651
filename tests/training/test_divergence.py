"""Losses that are not finite: skipped batches, returns to earlier weights, and giving up."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_training import SETTINGS, Fit, last_weights, member_folder, replace, small_model
from torch import Tensor

from densemble.errors import DivergedError
from densemble.tasks import SaliencyTask
from densemble.training.callbacks import read_rows
from densemble.training.checkpoints import read_checkpoint

STEPS = 3
"""Steps per epoch: 24 images in batches of 8."""


class BadSteps(SaliencyTask):
    """The loss of these training steps, counted from 0 over all epochs, is NaN."""

    def __init__(self, steps: Collection[int], first: int = 0) -> None:
        object.__setattr__(self, "loss_name", "")
        object.__setattr__(self, "bad", set(steps))
        object.__setattr__(self, "step", [first])

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        task: Any = self
        loss = super().loss(logits, target)
        if not logits.requires_grad:  # validation
            return loss
        task.step[0] += 1
        return loss * float("nan") if task.step[0] - 1 in task.bad else loss


class Watcher(Callback):
    """Records learning rate and weights after every step, in the order of the training."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[-1]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        state = pl_module.model.state_dict()
        self.weights.append({name: value.detach().clone() for name, value in state.items() if "running" not in name})


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items() if "num_batches" not in name)


def test_a_single_bad_batch_changes_nothing(fit: Fit, tmp_path: Path, lines: list[str]) -> None:
    watcher = Watcher()
    fitted = fit(tmp_path, task=BadSteps([1]), watch=(watcher,))
    assert (fitted["skipped_batches"], fitted["rollbacks"], fitted["epochs"]) == (1, 0, 2)
    assert same(watcher.weights[0], watcher.weights[1]) and not same(watcher.weights[1], watcher.weights[2])
    assert lines == ["small: the loss is not finite at step 2; the batch is skipped"]
    assert all(value.isfinite().all() for value in last_weights(tmp_path).values())


def test_several_bad_batches_return_to_the_initial_weights_with_half_the_rate(
    fit: Fit, tmp_path: Path, lines: list[str]
) -> None:
    watcher, plain = Watcher(), Watcher()
    settings = replace(SETTINGS, batch_size=4)
    fitted = fit(tmp_path / "a", settings, task=BadSteps([2, 3, 4]), watch=(watcher,))
    fit(tmp_path / "b", settings, watch=(plain,))
    assert (fitted["skipped_batches"], fitted["rollbacks"]) == (3, 1)
    assert same(watcher.weights[4], dict(small_model().state_dict()))
    assert watcher.rates[:5] == plain.rates[:5]
    assert watcher.rates[5:] == pytest.approx([rate / 2 for rate in plain.rates[5:]])
    assert lines[-1] == (
        "small: the loss is not finite at step 5; returned to the initial weights, with 0.5 times the learning rate"
    )


@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_a_later_epoch_returns_to_the_end_of_the_last_one(fit: Fit, tmp_path: Path, averaging: str) -> None:
    """A third epoch of which all three batches are bad ends with the weights of the second one."""
    settings = replace(SETTINGS, epochs=3, averaging=averaging)
    fitted = fit(tmp_path, settings, task=BadSteps([6, 7, 8]))
    assert fitted["rollbacks"] == 1
    folder = member_folder(tmp_path)
    last, before = read_checkpoint(folder.last), read_checkpoint(folder.previous)
    assert last["divergence"]["rate_factor"] == 0.5 and before["divergence"]["rate_factor"] == 1
    key = "state_dict" if averaging == "none" else "current_model_state"
    assert all(torch.equal(value, before[key][name]) for name, value in last[key].items())
    rows = read_rows(folder.metrics)
    if averaging == "none":  # the moving average goes on from the average of the second epoch
        assert rows[2]["val_cc"] == pytest.approx(rows[1]["val_cc"], abs=1e-6)


def test_weights_that_are_not_finite_are_replaced_at_once(fit: Fit, tmp_path: Path) -> None:
    """The gradient of a finite loss is infinite, so that the step destroys the weights."""

    class Destroyer(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
            if (trainer.current_epoch, index) == (0, 0):
                next(pl_module.model.head.parameters()).data.fill_(float("inf"))

    fitted = fit(tmp_path, watch=(Destroyer(),))
    assert (fitted["skipped_batches"], fitted["rollbacks"]) == (1, 1)
    assert all(value.isfinite().all() for value in last_weights(tmp_path).values())


def test_a_loss_that_is_never_finite_gives_up(fit: Fit, tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(DivergedError, match=r"small: .* after 3 returns .* lower learning_rate") as caught:
        fit(tmp_path, replace(SETTINGS, epochs=9), task=BadSteps(range(100)))
    assert caught.value.exit_code == 7
    assert sum("returned to the" in line for line in lines) == 3


class Stopper(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 2:
            raise InterruptedError


def test_a_resumed_training_remembers_its_returns(fit: Fit, tmp_path: Path) -> None:
    settings, bad = replace(SETTINGS, epochs=4), [1, 3, 4, 5, 8, 9, 10]
    whole = fit(tmp_path / "whole", settings, task=BadSteps(bad))
    with pytest.raises(InterruptedError):
        fit(tmp_path / "parts", settings, task=BadSteps(bad), watch=(Stopper(),))
    parts = fit(tmp_path / "parts", settings, task=BadSteps(bad, first=2 * STEPS))
    assert (parts["skipped_batches"], parts["rollbacks"]) == (whole["skipped_batches"], whole["rollbacks"]) == (7, 2)
    one, two = last_weights(tmp_path / "whole"), last_weights(tmp_path / "parts")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
