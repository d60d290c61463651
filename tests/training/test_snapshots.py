"""Snapshots equal the weights validated at the end of their epochs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from small_training import SETTINGS, Fit, last_weights, member_folder, replace
from torch import Tensor

from densemble.training.snapshot_callback import moments


class ValidatedWeights(Callback):
    """Records the weights validated in each epoch, counted from 1; fails or stops the training after a given epoch."""

    def __init__(self, fails_after: int | None = None, stops_after: int | None = None) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.fails_after = fails_after
        self.stops_after = stops_after

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch + 1 == self.stops_after:
            trainer.should_stop = True  # as TimeLimit does

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        state = pl_module.model.state_dict()
        self.weights[trainer.current_epoch + 1] = {key: value.detach().clone() for key, value in state.items()}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.fails_after:
            raise KeyError("killed")


def read_snapshots(run: Path) -> dict[int, dict[str, Tensor]]:
    return {int(path.stem): load_file(path) for path in member_folder(run).snapshots.glob("*")}


def require_equal(snapshots: dict[int, dict[str, Tensor]], expected: dict[int, dict[str, Tensor]]) -> None:
    for epoch, state in snapshots.items():
        assert state.keys() == expected[epoch].keys()
        assert all(torch.equal(tensor, expected[epoch][key]) for key, tensor in state.items())


def test_moments_are_equally_spaced_in_the_second_half_and_end_with_the_training() -> None:
    assert moments(1) == [1.0]
    assert moments(4) == [0.625, 0.75, 0.875, 1.0]


@pytest.mark.parametrize(
    ("epochs", "count", "expected", "averaging"), [(4, 2, [3, 4], "none"), (3, 9, [2, 3], "ema"), (1, 2, [1], "none")]
)
def test_snapshots_hold_the_validated_weights(
    fit: Fit, tmp_path: Path, epochs: int, count: int, expected: list[int], averaging: str
) -> None:
    validated = ValidatedWeights()
    settings = replace(SETTINGS, epochs=epochs, snapshots=count, averaging=averaging)
    fit(tmp_path, settings, watch=(validated,))
    snapshots = read_snapshots(tmp_path)
    assert sorted(snapshots) == expected
    require_equal(snapshots, validated.weights)
    require_equal({epochs: last_weights(tmp_path)}, validated.weights)


def test_snapshots_are_saved_only_on_request(fit: Fit, tmp_path: Path) -> None:
    fit(tmp_path, replace(SETTINGS, epochs=1))
    assert not member_folder(tmp_path).snapshots.exists()


def test_an_interrupted_training_keeps_its_snapshots_and_resumes(fit: Fit, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=3, snapshots=3)
    with pytest.raises(KeyError):
        fit(tmp_path, settings, watch=(ValidatedWeights(fails_after=2),))
    assert sorted(read_snapshots(tmp_path)) == [2]
    before = member_folder(tmp_path).snapshot(2).stat().st_mtime_ns
    fit(tmp_path, settings)
    assert sorted(read_snapshots(tmp_path)) == [2, 3]
    assert member_folder(tmp_path).snapshot(2).stat().st_mtime_ns == before, "it is written once"
    require_equal({3: read_snapshots(tmp_path)[3]}, {3: last_weights(tmp_path)})


def test_a_training_out_of_time_saves_its_last_weights(fit: Fit, tmp_path: Path) -> None:
    validated = ValidatedWeights(stops_after=2)
    fit(tmp_path, replace(SETTINGS, epochs=40, snapshots=3), watch=(validated,))
    snapshots = read_snapshots(tmp_path)
    assert sorted(snapshots) == [2]
    require_equal(snapshots, validated.weights)
