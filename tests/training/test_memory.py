"""A batch that does not fit is halved until it fits, accumulated to the same step, restarted from the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_training import SETTINGS, Fit, last_weights, replace, small_model
from torch import Tensor

from densemble.errors import ResourceError
from densemble.tasks import SaliencyTask

ON_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 GB")


class LimitedMemory(SaliencyTask):
    """Runs out of memory with more than ``fits`` images, from the second step on."""

    def __init__(self, fits: int, error: BaseException) -> None:
        object.__setattr__(self, "loss_name", "")
        object.__setattr__(self, "fits", fits)
        object.__setattr__(self, "error", error)
        object.__setattr__(self, "sizes", [])

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        task: Any = self
        task.sizes.append(len(target))
        if len(target) > task.fits and task.sizes.count(len(target)) > 1:
            raise task.error
        return super().loss(logits, target)


class InitialWeights(Callback):
    """Records the initial weights of every attempt, and the optimizer steps of the last one."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.weights.append({key: value.detach().clone() for key, value in pl_module.model.state_dict().items()})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.steps = trainer.global_step


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ON_GPU, id="gpu"),
        pytest.param(ON_CPU, id="cpu", marks=pytest.mark.slow),
        pytest.param(MemoryError(), id="python", marks=pytest.mark.slow),
    ],
)
def test_a_batch_is_halved_until_it_fits(fit: Fit, tmp_path: Path, error: BaseException) -> None:
    initial = InitialWeights()
    fitted = fit(tmp_path, SETTINGS, task=LimitedMemory(2, error), watch=(initial,))
    assert (fitted["batch_size"], fitted["accumulate"], fitted["epochs"]) == (2, 4, 2)
    assert initial.steps == 2 * 24 // 8, "as many steps as with whole batches"
    assert len(initial.weights) == 3, "attempts with 8, 4 and 2"
    for weights in initial.weights:
        assert all(torch.equal(weights[key], value) for key, value in small_model().state_dict().items())


def test_a_single_image_that_does_not_fit_is_an_error(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"out of memory even with one image.*lower input_size") as caught:
        fit(tmp_path, replace(SETTINGS, batch_size=3), task=LimitedMemory(0, ON_GPU))
    assert caught.value.exit_code == 6


def test_other_errors_are_not_retried(fit: Fit, tmp_path: Path) -> None:
    task = LimitedMemory(2, RuntimeError("shapes (3, 4) do not fit"))
    with pytest.raises(RuntimeError, match="do not fit"):
        fit(tmp_path, SETTINGS, task=task)
    assert getattr(task, "sizes") == [8, 8]  # noqa: B009  (the attribute bypasses the frozen dataclass)


def test_automatic_batch_size_is_the_largest_that_fits(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densemble.training.fit.LARGEST_BATCH", {"cuda": 16, "cpu": 16})
    fitted = fit(tmp_path, replace(SETTINGS, batch_size="auto"), task=LimitedMemory(4, ON_GPU))
    assert (fitted["batch_size"], fitted["accumulate"]) == (4, 4)


def test_the_range_test_uses_the_batch_that_fits(fit: Fit, tmp_path: Path) -> None:
    fitted = fit(tmp_path, replace(SETTINGS, learning_rate="auto", epochs=1), task=LimitedMemory(4, ON_GPU))
    assert fitted["batch_size"] == 4 and 1e-6 < fitted["learning_rate"] < 0.3


def test_accumulated_gradients_equal_those_of_the_whole_batch(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With frozen statistics everywhere a step on 2 x 4 images is a step on 8."""
    from torch import nn

    monkeypatch.setattr(nn.modules.batchnorm._BatchNorm, "train", lambda self, mode=True: nn.Module.train(self, False))
    settings = replace(SETTINGS, augment="none", epochs=1)
    fit(tmp_path / "whole", settings)
    fitted = fit(tmp_path / "halves", settings, task=LimitedMemory(4, ON_GPU))
    assert fitted["batch_size"] == 4
    whole, halves = last_weights(tmp_path / "whole"), last_weights(tmp_path / "halves")
    for key, value in whole.items():
        torch.testing.assert_close(halves[key], value, atol=1e-4, rtol=1e-3)
