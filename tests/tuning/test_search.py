"""Searches, with real trainings if the training matters, else with a formula for the score."""

import csv
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from densemble.config import RunConfig, make_config, read_config
from densemble.data.folder import FolderData
from densemble.engines.local import train_members
from densemble.errors import DivergedError, ResourceError, UsageError
from densemble.nets.dense import DEFAULT_HEAD
from densemble.training.callbacks import read_rows
from densemble.tuning import TuneResult, tune

optuna = pytest.importorskip("optuna")
SEARCH = sys.modules["densemble.tuning.search"]
STUDY = sys.modules["densemble.tuning.study"]

SETTINGS: dict[str, Any] = {
    "input_size": [48, 64],
    "out_size": [12, 16],
    "training": {"epochs": 2, "batch_size": 8, "precision": "fp32"},
}
NETWORK = {"backbone": "squeezenet1_1", "weights": None}


def quiet(line: str) -> None:
    pass


def search(scenes: Path, out: Path, trials: int, **changes: Any) -> TuneResult:
    words = {"backbone": NETWORK, "task": "saliency", "report": quiet, **SETTINGS, **changes}
    return tune(scenes, words.pop("backbone"), out, trials=trials, **words)


@pytest.fixture
def by_formula(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Replace training by a formula with its best score at a learning rate of 0.002; return the settings of trials."""
    trained: list[RunConfig] = []

    def train_trial(
        inputs: Any, config: RunConfig, folder: Path, title: str, left: Any, tell: Callable[[int, float], None]
    ) -> dict[str, Any]:
        trained.append(config)
        rate = config.members[0].learning_rate
        assert isinstance(rate, float)
        score = 1 - abs(math.log10(rate / 0.002)) / 4
        for epoch in (1, 2):
            tell(epoch, score * epoch / 2)
        return {"best": {inputs.metric: score}}

    monkeypatch.setattr(SEARCH, "train_trial", train_trial)
    return trained


# --- with real trainings --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    return search(scenes, tmp_path_factory.mktemp("tune") / "out", 3, space=["head", "learning_rate"])


def test_files_of_a_search(result: TuneResult, scenes: Path) -> None:
    assert [trial.state for trial in result.trials] == ["done"] * 3 and result.metric == "val_cc"
    assert all(set(trial.values) == {"head", "learning_rate"} for trial in result.trials), (
        "only these parameters are searched"
    )
    initial = {"head": DEFAULT_HEAD, "learning_rate": 1e-3}
    assert result.trials[0].values == initial, "the search starts with the settings"
    best = result.best
    assert best is not None and best.score == max(trial.score or 0 for trial in result.trials)
    for trial in result.trials:
        folder = result.path / "trials" / f"{trial.number:03d}"
        assert max(row["val_cc"] for row in read_rows(folder / "metrics.csv")) == trial.score
        assert (folder / "weights.safetensors").is_file() == (trial == best) and not (folder / "last.ckpt").exists()
    with (result.path / "trials.csv").open() as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == [trial.score for trial in result.trials]
    assert list(result.frame()["state"]) == ["done"] * 3


def test_the_best_settings_train_the_same_member_again(result: TuneResult, scenes: Path, tmp_path: Path) -> None:
    assert result.best is not None
    config = make_config(read_config(result.config))
    (member,) = config.members
    assert (member.head, member.learning_rate) == (result.best.values["head"], result.best.values["learning_rate"])
    (outcome,) = train_members(FolderData(scenes, config.task, **config.data), config, tmp_path / "run")
    assert outcome.state == "done", outcome.error
    (again,) = (tmp_path / "run" / "members").glob("*/weights.safetensors")
    tensors, kept = load_file(again), load_file(result.path / "trials" / f"{result.best.number:03d}" / again.name)
    assert tensors.keys() == kept.keys()
    assert all(tensors[key].allclose(kept[key], atol=1e-5) for key in kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "regression"}, "task 'saliency', and you ask for 'regression'"),
        ({"backbone": "resdeconv"}, "backbone 'squeezenet1_1', and you ask for 'resdeconv'"),
        ({"space": ["head"]}, "space .*'head', 'learning_rate'.*you ask for .*'head'"),
        ({"input_size": [32, 64]}, "input_size"),
    ],
)
def test_another_search_is_rejected_in_the_same_folder(
    result: TuneResult, scenes: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        search(scenes, result.path, 4, **{"space": ["head", "learning_rate"], **changes})


def test_other_data_is_rejected_in_the_same_folder(result: TuneResult, tmp_path: Path) -> None:
    from densemble.data.synthetic import make_scenes

    other = make_scenes(tmp_path / "other", train=4, val=2, size=(48, 64))
    with pytest.raises(UsageError, match=f"data folder .*you ask for '{other.resolve()}'"):
        search(other, result.path, 4, space=["head", "learning_rate"])


@pytest.mark.slow
def test_a_pruned_trial_ends_early(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PruneSecond(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.number == 1 and trial.last_step == 2

    monkeypatch.setattr(STUDY, "make_pruner", lambda epochs: PruneSecond())
    training = {**SETTINGS["training"], "epochs": 4}
    result = search(scenes, tmp_path / "out", 3, space=["learning_rate"], training=training)
    assert [trial.state for trial in result.trials] == ["done", "pruned", "done"]
    assert [trial.epochs for trial in result.trials] == [4, 2, 4]
    assert len(read_rows(tmp_path / "out" / "trials" / "001" / "metrics.csv")) == 2


def test_failed_trials_do_not_end_the_search(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_trial = SEARCH.train_trial

    def failing(inputs: Any, config: RunConfig, folder: Path, title: str, *rest: Any) -> dict[str, Any]:
        if title == "trial 0":
            raise ResourceError("out of memory")
        if title == "trial 1":
            config = make_config({**config.model_dump(), "members": [{**NETWORK, "learning_rate": 1e30}]})
        if title == "trial 2":
            config = make_config({**config.model_dump(), "members": [{**NETWORK, "cut": "nowhere"}]})
        return train_trial(inputs, config, folder, title, *rest)

    monkeypatch.setattr(SEARCH, "train_trial", failing)
    result = search(scenes, tmp_path / "out", 4, space=["learning_rate"])
    assert [trial.state for trial in result.trials] == ["failed", "failed", "failed", "done"]
    errors = [trial.error or "" for trial in result.trials]
    assert "out of memory" in errors[0] and "finite loss" in errors[1] and "no node 'nowhere'" in errors[2]


@pytest.mark.filterwarnings("ignore:.*nan is not acceptable")
def test_a_trial_with_a_nan_score_is_a_failed_trial(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([math.nan, 0.5])
    monkeypatch.setattr(SEARCH, "train_trial", lambda inputs, *_: {"best": {inputs.metric: next(scores)}})
    result = search(scenes, tmp_path / "out", 2, space=["learning_rate"])
    assert [(trial.state, trial.score) for trial in result.trials] == [("failed", None), ("done", 0.5)]


def test_if_every_trial_fails_the_first_reason_is_reported(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: Any) -> dict[str, Any]:
        raise DivergedError("the loss became nan")

    monkeypatch.setattr(SEARCH, "train_trial", diverges)
    with pytest.raises(DivergedError, match="none of 2 trials was trained to its end: the loss became nan"):
        search(scenes, tmp_path / "out", 2)
    assert not (tmp_path / "out" / "best.yaml").exists() and (tmp_path / "out" / "trials.csv").is_file()


@pytest.mark.slow
def test_a_killed_search_resumes(scenes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, epochs = tmp_path / "out", 5
    program = (
        "import sys; from densemble.tuning import tune; "
        f"tune({str(scenes)!r}, {NETWORK!r}, {str(out)!r}, 'saliency', 2, space=['learning_rate'], "
        f"**{ {**SETTINGS, 'training': {**SETTINGS['training'], 'epochs': epochs}}!r})"
    )
    victim = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = out / "trials" / "000"
    try:
        deadline = time.monotonic() + 120
        while not (first / "last.ckpt").is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(UsageError, match="another process tunes into"):
            search(scenes, out, 2, space=["learning_rate"])
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    before = len(read_rows(first / "metrics.csv"))
    assert 1 <= before < epochs
    result = search(scenes, out, 2, space=["learning_rate"], training={**SETTINGS["training"], "epochs": epochs})
    assert [(trial.number, trial.state, trial.epochs) for trial in result.trials] == [
        (0, "done", epochs), (1, "done", epochs)
    ]  # fmt: skip
    trained_now = capfd.readouterr().err.count("trial 0: epoch")
    assert trained_now <= epochs - before + 1, "epochs that were finished before the kill were trained again"


# --- the study, with a formula for the score ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_in_two_calls_equals_a_search_in_one(
    scenes: Path, tmp_path: Path, by_formula: list[RunConfig]
) -> None:
    whole = search(scenes, tmp_path / "whole", 14)
    assert len(search(scenes, tmp_path / "parts", 5).trials) == 5
    parts = search(scenes, tmp_path / "parts", 14)
    assert len(by_formula) == 14 + 14
    assert [trial.values for trial in parts.trials] == [trial.values for trial in whole.trials]
    assert len({trial.values["learning_rate"] for trial in parts.trials}) == 14, "no value is repeated"
    best, expected = search(scenes, tmp_path / "parts", 14).best, whole.best
    assert best is not None and expected is not None and len(by_formula) == 28
    assert replace(best, seconds=None) == replace(expected, seconds=None), "only the measured time may differ"


@pytest.mark.slow
def test_the_seed_decides_the_trials(scenes: Path, tmp_path: Path, by_formula: list[RunConfig]) -> None:
    results = [
        search(scenes, tmp_path / name, 3, training={**SETTINGS["training"], "seed": seed})
        for name, seed in (("a", 5), ("b", 5), ("c", 1000))
    ]
    a, b, c = ([trial.values for trial in result.trials] for result in results)
    assert a == b and a != c


def test_a_second_process_cannot_search_in_the_same_folder(
    scenes: Path, tmp_path: Path, by_formula: list[RunConfig]
) -> None:
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="is in use by another process"):
            search(scenes, tmp_path, 1)
    assert len(search(scenes, tmp_path, 1).trials) == 1


@pytest.mark.slow
def test_the_search_finds_the_best_rate_and_the_important_parameter(
    scenes: Path, tmp_path: Path, by_formula: list[RunConfig]
) -> None:
    result = search(scenes, tmp_path / "out", 30, space=["learning_rate", "augment"])
    assert result.best is not None and 0.0015 < result.best.values["learning_rate"] < 0.0027
    assert next(iter(result.importance)) == "learning_rate" and sum(result.importance.values()) == pytest.approx(1)
    assert any(trial.state == "pruned" for trial in result.trials), "the median pruner stops trials with low scores"
    assert search(scenes, tmp_path / "few", 3, space=["learning_rate"]).importance == {}


def test_lower_is_better_metrics_are_minimized(
    tmp_path: Path, by_formula: list[RunConfig], monkeypatch: pytest.MonkeyPatch, scenes: Path
) -> None:
    result = search(scenes, tmp_path / "out", 6, task="regression", space=["learning_rate"])
    done = [trial.score for trial in result.trials if trial.state == "done"]
    assert not result.higher_is_better and result.best is not None and result.best.score == min(s for s in done if s)


def test_a_time_limit_ends_a_search(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    lefts: list[float] = []

    def train_trial(inputs: Any, config: Any, folder: Any, title: str, left: float, tell: Any) -> dict[str, Any]:
        lefts.append(left)
        now[0] += 10
        return {"best": {inputs.metric: 0.5}}

    monkeypatch.setattr(SEARCH, "train_trial", train_trial)
    monkeypatch.setattr(SEARCH, "time", Clock)
    result = search(scenes, tmp_path / "out", 20, time=34)
    assert lefts == [34, 24, 14] and len(result.trials) == 3, "4 s are too short for a trial of 10 s"


# --- the command ----------------------------------------------------------------------------------------------------


def command(scenes: Path, out: Path, *more: object) -> list[object]:
    words = ["tune", scenes, "--task", "saliency", "--backbone", "squeezenet1_1", "-o", out, "--trials", 2]
    sizes = ["--set", "input_size=48x64", "--set", "out_size=12x16", "--set", "members.0.weights=null"]
    return [*words, *sizes, "--space", "learning_rate, head", *more]


def test_the_command_prints_the_result(
    densemble: Callable[..., Any], scenes: Path, tmp_path: Path, by_formula: list[RunConfig]
) -> None:
    words = command(scenes, tmp_path / "out", "--epochs", 3)
    done = densemble(*words, "--json")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert len(output["trials"]) == 2 and output["best"]["score"] == max(trial["score"] for trial in output["trials"])
    assert output["next"] == f"densemble train {scenes} --config {tmp_path}/out/best.yaml -o {tmp_path}/out/run"
    assert {config.members[0].epochs for config in by_formula} == {3}
    again = densemble(*words)
    header, first, _ = again.stdout.splitlines()
    assert header.split()[:4] == ["trial", "val_cc", "head", "learning_rate"]
    assert first.split()[0] == str(output["best"]["trial"]) and output["next"] in again.stderr


def test_the_command_keeps_the_settings_of_the_config_file(
    densemble: Callable[..., Any], scenes: Path, tmp_path: Path, by_formula: list[RunConfig]
) -> None:
    members = '[alexnet, {"backbone": "squeezenet1_1", "name": "mine", "max_stride": 16}]'
    (tmp_path / "run.yaml").write_text(f"task: saliency\nmembers: {members}\n")
    done = densemble(*command(scenes, tmp_path / "out", "--config", tmp_path / "run.yaml"))
    assert done.returncode == 0, done.stderr
    assert {(config.members[0].name, config.members[0].max_stride) for config in by_formula} == {("mine", 16.0)}


def test_ctrl_c_keeps_finished_trials(
    densemble: Callable[..., Any], scenes: Path, tmp_path: Path, by_formula: list[RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    train_trial = SEARCH.train_trial

    def interrupted(inputs: Any, config: Any, folder: Any, title: str, left: Any, tell: Any) -> dict[str, Any]:
        if title == "trial 1":
            raise KeyboardInterrupt
        return train_trial(inputs, config, folder, title, left, tell)

    monkeypatch.setattr(SEARCH, "train_trial", interrupted)
    stopped = densemble(*command(scenes, tmp_path / "out"))
    assert stopped.returncode == 130 and "run the same command again" in stopped.stderr
    assert (tmp_path / "out" / "best.yaml").is_file()
    monkeypatch.setattr(SEARCH, "train_trial", train_trial)
    result = search(scenes, tmp_path / "other", 2, space=["head", "learning_rate"])
    done = densemble(*command(scenes, tmp_path / "out", "--json"))
    trials = json.loads(done.stdout)["trials"]
    assert [trial["trial"] for trial in trials] == [0, 1]
    assert [trial["learning_rate"] for trial in trials] == [trial.values["learning_rate"] for trial in result.trials]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--space", "cutt"), "cannot search 'cutt'"),
        (("--time", "soon"), "not a duration"),
        (("--set", "trainer.devices=2"), "trained on one device"),
        (("--backbone", "squeezenet"), "squeezenet1_1"),
        (("--set", "members.0.cut=nowhere"), "no node 'nowhere'"),
    ],
)
def test_misuse_is_reported_in_one_line(
    densemble: Callable[..., Any], scenes: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    done = densemble(*command(scenes, tmp_path / "out", *more))
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_the_error_without_optuna_names_the_package(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'densemble\[hpo\]'"):
        search(scenes, tmp_path / "out", 1)


def test_a_damaged_study_is_an_error(scenes: Path, tmp_path: Path, by_formula: list[RunConfig]) -> None:
    from densemble.errors import ArtifactError

    search(scenes, tmp_path / "out", 1)
    (tmp_path / "out" / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(ArtifactError, match="cannot read the search in"):
        search(scenes, tmp_path / "out", 2)


def test_a_folder_data_keeps_its_options(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["densemble.tuning"], "run_search", lambda data, config, *_: (data.path, config))
    of_path: Any = tune(scenes, NETWORK, tmp_path, task="saliency", **SETTINGS)
    assert tune(FolderData(scenes, "saliency"), NETWORK, tmp_path, **SETTINGS) == of_path
    seeded: Any = tune(FolderData(scenes, "saliency", seed=3), NETWORK, tmp_path, **SETTINGS)
    assert seeded[1].data == {**of_path[1].data, "seed": 3}
    with pytest.raises(UsageError, match="contradicts the FolderData's 'saliency'"):
        tune(FolderData(scenes, "saliency"), NETWORK, tmp_path, task="depth")
