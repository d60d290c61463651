"""Complete trainings on a small synthetic set: files, isolation of failures, resuming after kill -9."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_run import SMALL_RUN
from torchvision.models import WeightsEnum

from densemble.config import make_config
from densemble.data.folder import FolderData
from densemble.engines import local
from densemble.engines.budget import Budget, parse_time
from densemble.engines.local import train_members
from densemble.engines.member import count_epochs, raise_failures
from densemble.errors import ArtifactError, DivergedError, PartialError, UsageError, WeightsError
from densemble.run import Run
from densemble.training.callbacks import read_rows
from densemble.training.dataset import EpochSampler
from densemble.training.module import TrainingProgress, schedule


@pytest.fixture(scope="module")
def finished_run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three members on ``scenes``, trained for two epochs. Tests must not change it."""
    out = tmp_path_factory.mktemp("run") / "run"
    outcomes = train_members(FolderData(scenes, "saliency"), make_config(SMALL_RUN), out)
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    return out


def test_files_of_a_run(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert {"run.yaml", "env.json", "data_report.json", "events.jsonl", "members"} <= names
    folders = sorted(path.name for path in (finished_run / "members").iterdir())
    assert folders == ["01-squeezenet1_1", "02-resdeconv", "03-lite0"]
    for folder in (finished_run / "members").iterdir():
        record = json.loads((folder / "member.json").read_text())
        rows = read_rows(folder / "metrics.csv")
        assert record["state"] == "done" and record["epochs"] == len(rows) == 2
        assert {"epoch", "train_loss", "val_loss", "val_cc", "learning_rate"} <= set(rows[0])
        assert {"cc", "nss", "sim", "kld", "auc_judd"} <= set(record["val"])
        assert (folder / "plots" / "curves.png").stat().st_size > 1000
        assert np.load(folder / "val_predictions.npy").shape == (8, 1, 12, 16)
        best, last = load_file(folder / "weights.safetensors"), torch.load(folder / "last.ckpt", weights_only=True)
        assert {f"model.{name}" for name in best} == set(last["state_dict"])


def test_training_is_repeatable_and_members_are_independent(finished_run: Path, scenes: Path, tmp_path: Path) -> None:
    alone = {**SMALL_RUN, "members": SMALL_RUN["members"][1:2]}
    train_members(FolderData(scenes, "saliency"), make_config(alone), tmp_path / "alone")
    one = load_file(finished_run / "members" / "02-resdeconv" / "weights.safetensors")
    two = load_file(tmp_path / "alone" / "members" / "01-resdeconv" / "weights.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4)


def test_batch_statistics_of_a_member_without_pretraining_are_updated(finished_run: Path) -> None:
    weights = load_file(finished_run / "members" / "02-resdeconv" / "weights.safetensors")
    means = [
        tensor for name, tensor in weights.items() if name.startswith("backbone") and name.endswith("running_mean")
    ]
    assert means and all(mean.abs().max() > 0 for mean in means)


def test_a_member_that_fails_does_not_stop_the_others(scenes: Path, tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "bad.safetensors")
    members = [
        {"backbone": "squeezenet1_1", "name": "bad", "weights": str(tmp_path / "bad.safetensors")},
        {"backbone": "resdeconv", "name": "diverges", "learning_rate": 1e30},
        {"backbone": "resdeconv", "name": "good"},
    ]
    values = {**SMALL_RUN, "members": members, "training": {**SMALL_RUN["training"], "epochs": 1}}
    outcomes = train_members(FolderData(scenes, "saliency"), make_config(values), tmp_path / "run")
    assert [outcome.state for outcome in outcomes] == ["failed", "failed", "done"]
    assert isinstance(outcomes[1].cause, DivergedError)
    with pytest.raises(PartialError, match=r"2 of 3 members failed.*bad.*diverges") as caught:
        raise_failures(outcomes)
    assert caught.value.exit_code == 5
    with pytest.raises(DivergedError, match="every member failed"):
        raise_failures(outcomes[1:2])
    assert list(Run(tmp_path / "run").trained()) == ["good"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("absent.pth", "no weights file at"),
        ("bad.safetensors", "cannot read weights"),
        (None, r"cannot download.*--set members\.1\.weights=null"),
    ],
)
def test_weights_that_cannot_be_read_stop_the_run_before_any_training(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, message: str
) -> None:
    def no_connection(*_: Any, **__: Any) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", no_connection)
    monkeypatch.setattr(local, "train_isolated", lambda *_: pytest.fail("trained"))
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    weights = {"weights": str(tmp_path / file)} if file else {}
    values = {**SMALL_RUN, "members": [{"backbone": "resdeconv"}, {"backbone": "squeezenet1_1", **weights}]}
    with pytest.raises(WeightsError, match=rf"squeezenet1_1: {message}.*stopped before any training"):
        train_members(FolderData(scenes, "saliency"), make_config(values), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir()), "the same command can be repeated"


KILLED = """
import os, signal, sys
from densemble.cli import main
from densemble.training.callbacks import EpochRecord

end_epoch = EpochRecord.on_train_epoch_end

def end_epoch_and_die(record, trainer, module):
    end_epoch(record, trainer, module)
    if record.folder.path.name == "02-second" and len(record.rows) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

EpochRecord.on_train_epoch_end = end_epoch_and_die
main()
"""


@pytest.mark.slow
def test_a_killed_run_resumes(densemble: Callable[..., Any], scenes: Path, tmp_path: Path) -> None:
    members = [{"backbone": "resdeconv", "name": "first", "epochs": 1}, {"backbone": "resdeconv", "name": "second"}]
    trainer = {"isolated": False}  # the patched callback is in this process
    values = {**SMALL_RUN, "members": members, "training": {**SMALL_RUN["training"], "epochs": 4}, "trainer": trainer}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    command = ["train", str(scenes), "--config", str(tmp_path / "run.yaml"), "-o", str(tmp_path / "run")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    second = tmp_path / "run" / "members" / "02-second"
    assert json.loads((second / "member.json").read_text())["state"] == "running"
    assert len(read_rows(second / "metrics.csv")) == 2
    first = tmp_path / "run" / "members" / "01-first"
    untouched = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    del untouched["last.ckpt"]  # removed when the run is complete
    refused = densemble(*command)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    done = densemble(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert "first: already trained, kept" in done.stderr
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == untouched
    assert [int(row["epoch"]) for row in read_rows(second / "metrics.csv")] == [1, 2, 3, 4]
    assert done.stderr.count("second: epoch") == 2, "epochs that were finished before the kill were trained again"


@pytest.mark.slow
def test_a_time_limit_ends_trainings_and_leaves_usable_members(scenes: Path, tmp_path: Path, lines: list[str]) -> None:
    members = [{"backbone": "resdeconv", "name": "a"}, {"backbone": "resdeconv", "name": "b"}]
    values = {**SMALL_RUN, "members": members, "training": {**SMALL_RUN["training"], "epochs": 100_000}}
    data = FolderData(scenes, "saliency")
    outcomes = train_members(data, make_config(values), tmp_path / "run", budget=Budget(9))
    trained = list(Run(tmp_path / "run").trained())
    assert trained == [outcome.name for outcome in outcomes if outcome.state == "done"] and trained, "at least one"
    assert {outcome.state for outcome in outcomes} <= {"done", "left out"}
    (metrics,) = (tmp_path / "run" / "members").glob(f"*-{trained[-1]}/metrics.csv")
    last = read_rows(metrics)[-1]
    assert last["epoch"] < 100_000 and last["learning_rate"] < 1e-3, "the schedule follows the time"
    (estimate,) = [line for line in lines if line.startswith("time: 9 s")]
    assert "assembly" in estimate and any(line.startswith("  ") and "epochs in" in line for line in lines)


def test_other_settings_are_rejected_on_resume(finished_run: Path, scenes: Path) -> None:
    other = {**SMALL_RUN, "training": {**SMALL_RUN["training"], "epochs": 3}}
    with pytest.raises(UsageError, match="differs from the settings"):
        train_members(FolderData(scenes, "saliency"), make_config(other), finished_run, resume=True)


def test_machine_settings_may_change_on_resume(finished_run: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    other = {**SMALL_RUN, "trainer": {"workers": 1, "loggers": ["tensorboard"]}, "weights_dir": str(tmp_path)}
    outcomes = train_members(FolderData(scenes, "saliency"), make_config(other), tmp_path / "run", resume=True)
    assert [outcome.state for outcome in outcomes] == ["kept"] * 3


@pytest.mark.parametrize(
    "member",
    [{"backbone": "alexnte"}, {"backbone": "alexnet", "cut": "nowhere"}, {"backbone": "alexnet", "head": "hat"}],
)
def test_misspelt_members_fail_before_training(member: dict, scenes: Path, tmp_path: Path) -> None:
    values = {**SMALL_RUN, "members": [{"backbone": "resdeconv"}, {**member, "weights": None}]}
    with pytest.raises(UsageError):
        train_members(FolderData(scenes, "saliency"), make_config(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_leaderboard_and_assembly(finished_run: Path) -> None:
    run = Run(finished_run)
    everyone = run.assemble("all")
    assert list(everyone.members) == ["squeezenet1_1", "resdeconv", "lite0"]
    assert everyone.weights["lite0"] == pytest.approx(1 / 3)
    weighted = run.assemble("resdeconv,lite0", weights=[3, 1])
    assert weighted.weights == {"resdeconv": 0.75, "lite0": 0.25}
    table = run.leaderboard()
    assert list(table["cc"]) == sorted(table["cc"], reverse=True) and "ensemble (resdeconv,lite0)" in table.index
    best = run.assemble("best")
    assert list(best.members) == [next(name for name in table.index if not name.startswith("ensemble"))]
    greedy = run.assemble("greedy")
    assert greedy.metrics["val"]["cc"] >= max(r["val"]["cc"] for r in run.trained().values()) - 0.02
    with pytest.raises(UsageError, match="no trained member is named 'nobody'"):
        run.assemble("nobody")
    with pytest.raises(ArtifactError, match="no run folder"):
        Run(finished_run / "members")


def test_trained_epochs_count_a_last_one_that_was_cut_short_as_a_part() -> None:
    assert count_epochs([5, 4, 4], 3) == 3 and count_epochs([], 3) == 0
    assert count_epochs([4, 6, 2.5], 8) == 2.5, "the complete ones take 5 s on average"
    assert count_epochs([4, 4, 9], 8) == 3, "a slow epoch is one epoch"
    assert count_epochs([4], 8) == 0, "it may be a part of any size"


def test_learning_rate_schedule() -> None:
    assert schedule(0) < 0.1 and schedule(0.05) == pytest.approx(1) and schedule(1) == pytest.approx(0.01)
    assert TrainingProgress(100, None).at(50) == 0.5
    timed = TrainingProgress(100, 10)
    timed.started -= 8
    assert timed.at(10) == pytest.approx(0.8, abs=0.01) and timed.at(100) == 1


def test_the_order_of_samples_depends_on_seed_and_epoch() -> None:
    one, two = EpochSampler(50, 1), EpochSampler(50, 1)
    first = list(one)
    assert first == list(two) and sorted(index for _, index in first) == list(range(50))
    one.set_epoch(1)
    assert [i for _, i in one] != [i for _, i in first]
    assert [i for _, i in EpochSampler(5, None)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("90s", 90), ("2h", 7200), ("45", 45), (12, 12), (None, None)]
)
def test_durations(text: object, seconds: object) -> None:
    assert parse_time(text) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "nan"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(UsageError, match="30m"):
        parse_time(text)
