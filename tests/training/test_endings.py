"""Early stopping, loggers, and bit-reproducible trainings."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_training import SETTINGS, Fit, last_weights, member_folder, replace
from torch import Tensor

from densemble.config import TrainerConfig, make_config
from densemble.errors import ConfigError, UsageError
from densemble.metrics import Metric
from densemble.tasks import SaliencyTask
from densemble.training.callbacks import read_rows
from densemble.training.loggers import LOGGERS, make_loggers

# --- patience -------------------------------------------------------------------------------------------------------


class ScriptedTask(SaliencyTask):
    """Gives predefined scores: the n-th call of ``metrics`` returns the score of the n-th epoch."""

    def __init__(self, scores: list[float], done: int = 0) -> None:
        object.__setattr__(self, "loss_name", "")
        object.__setattr__(self, "left", iter([0.0, *scores[done:]]))  # the first call comes before any epoch

    def metrics(self) -> Metric:
        task: Any = self
        return FixedScore(next(task.left))


class LowerIsBetter(ScriptedTask):
    higher_is_better = False


class FixedScore(Metric):
    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        pass

    def compute(self) -> Any:
        return {"cc": self.score}


SCORES = [0.1, 0.3, 0.2, 0.25, 0.9, 0.9]


@pytest.mark.parametrize(("patience", "ended"), [(1, 3), (2, 4), (3, 6), (None, 6)])
def test_patience_runs_out(fit: Fit, tmp_path: Path, patience: int | None, ended: int) -> None:
    fitted = fit(tmp_path, replace(SETTINGS, epochs=6, patience=patience), task=ScriptedTask(SCORES))
    assert fitted["epochs"] == ended
    assert fitted["best"]["epoch"] == (5 if ended == 6 else 2)


def test_patience_respects_the_direction_of_the_metric(fit: Fit, tmp_path: Path) -> None:
    fitted = fit(tmp_path, replace(SETTINGS, epochs=6, patience=2), task=LowerIsBetter(SCORES))
    assert (fitted["epochs"], fitted["best"]["epoch"]) == (3, 1)


class Interrupter(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 3:
            raise InterruptedError


def test_patience_keeps_its_count_after_an_interruption(fit: Fit, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=6, patience=2)
    with pytest.raises(InterruptedError):
        fit(tmp_path, settings, task=ScriptedTask(SCORES), watch=(Interrupter(),))
    assert len(read_rows(member_folder(tmp_path).metrics)) == 3, "one epoch without a better score"
    assert fit(tmp_path, settings, task=ScriptedTask(SCORES, done=3))["epochs"] == 4


# --- loggers --------------------------------------------------------------------------------------------------------


def logged(fit: Fit, run: Path, name: str) -> list[dict[str, float]]:
    fit(run, replace(SETTINGS, machine=TrainerConfig(loggers=[name])))
    return read_rows(member_folder(run).metrics)


def test_tensorboard_holds_the_curves(fit: Fit, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = logged(fit, tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard" / "small")).Reload()
    for name in ("val_cc", "val_loss", "train_loss"):
        values = [scalar.value for scalar in events.Scalars(name)]
        assert values == pytest.approx([row[name] for row in rows], rel=1e-4), name


def test_mlflow_holds_the_curves(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    rows = logged(fit, tmp_path, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string=f"name = '{tmp_path.name}'")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "val_cc")
    assert [metric.value for metric in history] == pytest.approx([row["val_cc"] for row in rows], rel=1e-4)


def test_wandb_runs_offline_on_request(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged(fit, tmp_path, "wandb")
    assert list((tmp_path / "logs").rglob("*.wandb"))


def test_unknown_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no logger is named 'neptune'; there are: tensorboard, mlflow, wandb"):
        make_loggers(["neptune"], tmp_path, "small")
    with pytest.raises(ConfigError, match="loggers"):
        make_config({"task": "saliency", "trainer": {"loggers": ["neptune"]}})

    def absent(folder: Path, member: str) -> Any:
        raise ModuleNotFoundError("No module named 'mlflow'")

    monkeypatch.setitem(LOGGERS, "mlflow", absent)
    with pytest.raises(UsageError, match=r'pip install "densemble\[log\]"'):
        make_loggers(["mlflow"], tmp_path, "small")
    assert make_loggers([], tmp_path / "none", "small") == [] and not (tmp_path / "none").exists()


# --- reproducibility -------------------------------------------------------------------------------------------------


@pytest.fixture
def any_algorithm() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


class DeterminismRecorder(Callback):
    deterministic = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.deterministic = torch.are_deterministic_algorithms_enabled()


def test_deterministic_trainings_are_bit_equal(fit: Fit, tmp_path: Path, any_algorithm: None) -> None:
    settings, seen = (
        replace(SETTINGS, machine=TrainerConfig(deterministic=True), averaging="ema"),
        DeterminismRecorder(),
    )
    for name in ("one", "two"):
        fit(tmp_path / name, settings, watch=(seen,))
    one, two = last_weights(tmp_path / "one"), last_weights(tmp_path / "two")
    assert seen.deterministic and all(torch.equal(one[key], value) for key, value in two.items())


def test_workers_do_not_change_the_weights(fit: Fit, tmp_path: Path) -> None:
    for workers in (0, 2):
        fit(tmp_path / str(workers), replace(SETTINGS, machine=TrainerConfig(workers=workers), epochs=1))
    here, there = last_weights(tmp_path / "0"), last_weights(tmp_path / "2")
    for key, value in here.items():
        torch.testing.assert_close(there[key], value, atol=1e-6, rtol=1e-5)
