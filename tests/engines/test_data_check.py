"""A training checks its data first, and continues only with unchanged data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.good_sets import image_of, labels, photo, save, target_of, write_good
from small_run import DONE

import densemble as de
from densemble.config import make_config
from densemble.data.digests import changes, data_digests
from densemble.data.folder import FolderData
from densemble.data.layouts.panoptic import PanopticDrawing
from densemble.engines import data_check, local
from densemble.engines.data_check import require_sound
from densemble.engines.member import Outcome
from densemble.errors import ArtifactError, DataError, UsageError
from densemble.messages import shown
from densemble.storage.runs import RunFolder, read_json
from densemble.tuning import tune

SETTINGS: dict[str, Any] = {
    "task": "segmentation",
    "input_size": [48, 64],
    "members": [{"backbone": "resdeconv", "name": "one"}],
}


def black_and_white(folder: Path) -> None:
    for stem in "abcdef":
        save(target_of(folder, stem), np.where(labels(ord(stem)) == 1, 255, 0).astype(np.uint8))


def jpeg(folder: Path) -> None:
    for stem in "abcdef":
        save(target_of(folder, stem).with_suffix(".jpg"), labels(ord(stem)) * 100, quality=30)


def leaked(folder: Path) -> None:
    save(image_of(folder, "e"), photo(0))


SPOILT = {
    "0/255 mask": (black_and_white, "--set 'data.label_map={255: 1}'"),
    "lossy labels": (jpeg, "save it as PNG"),
    "leak": (leaked, "data.leave_out"),
}


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Mark members as trained without training; return their names in training order."""
    trained: list[str] = []

    def train_member(training: Any, index: int) -> Outcome:
        trained.append(training.name(index))
        folder = training.folder(index)
        folder.path.mkdir(parents=True)
        folder.record.write_text(json.dumps(DONE))
        return Outcome(training.name(index), "done")

    monkeypatch.setattr(local, "train_isolated", train_member)
    return trained


def members(folder: Path, out: Path, resume: bool = False, retrain: bool = False) -> list[str]:
    lines: list[str] = []
    config, data = make_config(SETTINGS), FolderData(folder, "segmentation")
    if retrain:
        with shown(lines.append):
            local.forget_changed(data, config, out)
    with shown(lines.append):
        local.train_members(data, config, out, resume or retrain)
    return lines


@pytest.mark.parametrize("kind", SPOILT)
def test_check_errors_stop_every_training_with_the_same_text(
    kind: str, tmp_path: Path, untrained: list[str], densemble: Callable[..., Any]
) -> None:
    """Also if a file of class names beside the masks would hide the fault."""
    spoil, fix = SPOILT[kind]
    data, out = write_good(tmp_path / "data", "segmentation"), tmp_path / "run"
    (data / "classes.txt").write_text("sky\nroad\ncar\n")
    spoil(data)
    checked = densemble("data", "check", data, "--task", "segmentation")
    expected = checked.stdout[checked.stdout.index(f"error: {kind}") :].split("\n\n")[0]
    assert checked.returncode == 3 and fix in expected
    done = densemble("train", data, "--task", "segmentation", "-o", out, "--members", "resdeconv", "--time", "9m")
    assert done.returncode == 3 and expected in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(DataError, match="nothing was trained") as raised:
        de.train(data, ["resdeconv"], out, task="segmentation", report=lambda line: None)
    assert expected in str(raised.value)
    with pytest.raises(DataError, match="nothing was trained") as raised:
        tune(data, "resdeconv", tmp_path / "search", task="segmentation", report=lambda line: None)
    assert expected in str(raised.value)
    assert untrained == [] and not (out / "run.yaml").exists()


def test_warnings_are_printed_and_the_training_continues(tmp_path: Path, untrained: list[str]) -> None:
    data = write_good(tmp_path / "data", "segmentation")
    (data / "classes.txt").write_text("sky\nroad\ncar\nboat\n")
    lines = members(data, tmp_path / "run")
    assert "warning: absent class (1)" in lines and "  class 'boat' is in no map" in lines
    assert any(line.startswith("  remedy: remove it from the class names") for line in lines)
    assert untrained == ["one"]


def test_a_check_is_cached_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    folder = write_good(tmp_path, "segmentation")
    checks: list[object] = []
    real = data_check.check
    monkeypatch.setattr(data_check, "check", lambda *given: [checks.append(given), real(*given)][1])
    data_check.check_and_cache(FolderData(folder, "segmentation"), "error")
    require_sound(FolderData(folder, "segmentation"))
    assert len(checks) == 1 and lines[0].startswith("6 pairs not changed since the last check")
    save(target_of(folder, "b"), np.where(labels(1) == 1, 255, 0).astype(np.uint8))
    with pytest.raises(DataError):
        require_sound(FolderData(folder, "segmentation", classes=["x", "y"]))
    with pytest.raises(DataError):
        require_sound(FolderData(folder, "segmentation", classes=["x", "y"]))
    assert len(checks) == 2


def change_map(folder: Path) -> None:
    save(target_of(folder, "e"), labels(77))


def add_pair(folder: Path) -> None:
    save(folder / "train" / "images" / "g.png", photo(50))
    save(folder / "train" / "targets" / "g.png", labels(50))


def remove_pair(folder: Path) -> None:
    target_of(folder, "b").unlink()
    image_of(folder, "b").unlink()


def rename_classes(folder: Path) -> None:
    (folder / "classes.txt").write_text("sky\nroad\ntree\n")


CHANGED = {
    "val: 1 changed (e)": change_map,
    "train: 1 added (g)": add_pair,
    "train: 1 removed (b)": remove_pair,
    "classes was ('sky', 'road', 'car') and is ('sky', 'road', 'tree')": rename_classes,
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_run_cannot_be_resumed_with_other_data(what: str, tmp_path: Path, untrained: list[str]) -> None:
    data, out = write_good(tmp_path / "data", "segmentation"), tmp_path / "run"
    (data / "classes.txt").write_text("sky\nroad\ncar\n")
    members(data, out)
    assert members(data, out, resume=True)[-1] == "one: already trained, kept" and untrained == ["one"]
    CHANGED[what](data)
    with pytest.raises(UsageError) as raised:
        members(data, out, resume=True)
    assert what in str(raised.value) and "--retrain" in str(raised.value)
    baselines, run = read_json(RunFolder(out).baselines), RunFolder(out)
    run.artifact.write_text("of the old data")
    lines = members(data, out, retrain=True)
    assert untrained == ["one", "one"] and any(what in line for line in lines)
    assert not run.artifact.exists()
    assert read_json(run.baselines) != baselines or "classes" in what
    members(data, out, retrain=True)  # the data is the same: nothing to do
    assert untrained == ["one", "one"]


def test_without_a_trained_member_data_may_change(tmp_path: Path, untrained: list[str]) -> None:
    data, out = write_good(tmp_path / "data", "segmentation"), tmp_path / "run"
    members(data, out)
    RunFolder(out).member(0, "one").record.unlink()
    RunFolder(out).member(0, "one").path.rmdir()
    change_map(data)
    members(data, out, resume=True)
    assert untrained == ["one", "one"]


def test_changed_validation_targets_are_not_scored_with_old_predictions(tmp_path: Path, untrained: list[str]) -> None:
    data, out = write_good(tmp_path / "data", "segmentation"), tmp_path / "run"
    members(data, out)
    de.Run(out).open_data()
    change_map(data)
    with pytest.raises(ArtifactError, match=r"val: 1 changed \(e\).*--retrain"):
        de.Run(out).open_data()


def test_a_search_cannot_be_resumed_with_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr("densemble.tuning.search._Search.run", lambda *_: None)
    monkeypatch.setattr("densemble.tuning.search.prepare", lambda *_: None)
    monkeypatch.setattr("densemble.tuning.search._Search.result", lambda _: type("Result", (), {"best": 1}))
    data = write_good(tmp_path / "data", "segmentation")

    def search() -> None:
        tune(data, "resdeconv", tmp_path / "search", task="segmentation", report=lambda line: None)

    search()
    search()
    change_map(data)
    with pytest.raises(UsageError, match=r"val: 1 changed \(e\); put it back, or choose another folder"):
        search()


def test_digests_depend_on_content_and_not_on_paths(tmp_path: Path) -> None:
    one = FolderData(write_good(tmp_path / "one", "segmentation"), "segmentation")
    other = FolderData(write_good(tmp_path / "other", "segmentation"), "segmentation")
    assert changes(data_digests(one), data_digests(other)) == []
    scaled = FolderData(tmp_path / "one", "segmentation", label_map={2: 1})
    assert changes(data_digests(one), data_digests(scaled)) == ["label_map was None and is {2: 1}"]
    written = {"label_map": "{2: 1}", "scale": "1.0", "bands": "(0, 2)", "heat_max": "None", "exif": "auto"}
    banded = FolderData(tmp_path / "one", "segmentation", label_map={2: 1}, bands=[0, 2])
    assert written.items() <= data_digests(banded)["reading"].items(), "as in earlier runs"
    drawn = PanopticDrawing(tmp_path / "all.json", tmp_path / "map.png", ((1, 0),))
    sample = one.train[0].__class__(tmp_path / "a.png", tmp_path / "all.json", drawing=drawn)
    assert sample.files == (tmp_path / "a.png", tmp_path / "map.png")
