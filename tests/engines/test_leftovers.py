"""A complete run keeps no checkpoints and no decoded images; an unfinished run keeps them to continue."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_run import DONE, SMALL_RUN

import densemble as de
from densemble.config import make_config
from densemble.engines.leftovers import remove_leftovers
from densemble.messages import shown
from densemble.storage.runs import RunFolder, read_json
from densemble.storage.writing import write_json

NAMES = ("squeezenet1_1", "resdeconv", "lite0")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The files of a run of three members with features of one of them; 0.4 to 1.2 MB per checkpoint."""
    run = RunFolder(tmp_path / "run")
    for number, name in enumerate(NAMES):
        folder = run.member(number, name)
        folder.path.mkdir(parents=True)
        write_json(folder.record, {**DONE, "name": name})
        for file, kilobytes in ((folder.weights, 200), (folder.last, 400 * (number + 1))):
            file.write_bytes(bytes(1000 * kilobytes))
    for part in ("decoded-abc", "features-abc"):
        (run.cache / part).mkdir(parents=True)
        np.save(run.cache / part / "0.npy", np.zeros(8))
    run.artifact.write_bytes(b"ensemble")
    return run


def remove(run: RunFolder, **trainer: Any) -> list[str]:
    lines: list[str] = []
    with shown(lines.append):
        remove_leftovers(run, make_config({**SMALL_RUN, "trainer": trainer}))
    return lines


def checkpoints(run: RunFolder) -> list[str]:
    return [name for number, name in enumerate(NAMES) if run.member(number, name).last.is_file()]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_only_checkpoints_and_cache_of_a_complete_run_are_removed(run: RunFolder) -> None:
    assert checkpoints(run) == list(NAMES) and run.cache.is_dir()
    before = {path: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    (line,) = remove(run)
    gone = {path for path in before if not path.exists()}
    assert gone == {path for path in before if path.name == "last.ckpt" or run.cache in path.parents}
    assert line == "removed 2.4 MB of checkpoints and 0.0 MB of decoded images (--keep-checkpoints keeps them)"
    assert remove(run) == [], "nothing is left to remove"


def test_checkpoints_and_cache_are_kept_on_request(run: RunFolder) -> None:
    before = size(run.path)
    assert remove(run, keep_checkpoints=True) == [] and size(run.path) == before


@pytest.mark.parametrize(("state", "reason"), [("failed", "failed"), ("running", "was interrupted")])
def test_an_unfinished_member_keeps_its_checkpoint_and_the_cache(run: RunFolder, state: str, reason: str) -> None:
    record = run.member(1, "resdeconv").record
    write_json(record, {**read_json(record), "state": state})
    np.save(run.cache / "decoded-abc" / "1.npy", np.zeros(300_000, np.uint8))
    removed, kept = remove(run)
    assert checkpoints(run) == ["resdeconv"] and run.cache.is_dir()
    assert removed == "removed 1.6 MB of checkpoints (--keep-checkpoints keeps them)", "0.4 + 1.2 MB, no images"
    images = "0.3 MB of decoded images"
    assert kept == f"kept 0.8 MB of checkpoints and {images} for --resume, because resdeconv {reason}"
    run.member(1, "resdeconv").last.unlink()
    assert remove(run) == [f"kept {images} for --resume, because resdeconv {reason}"], "nothing was removed"


def test_a_member_left_out_keeps_no_checkpoint_and_no_cache(run: RunFolder) -> None:
    shutil.rmtree(run.member(2, "lite0").path)
    remove(run)
    assert checkpoints(run) == [] and not run.cache.is_dir()


def test_a_shared_cache_stays(run: RunFolder, tmp_path: Path) -> None:
    shared = shutil.copytree(run.cache, tmp_path / "shared")
    before = size(shared)
    remove(run, cache_dir=str(shared))
    assert size(shared) == before


def test_train_removes_and_resumes(scenes: Path, tmp_path: Path, densemble: Any) -> None:
    values = {**SMALL_RUN, "members": [{"backbone": "resdeconv"}], "training": {**SMALL_RUN["training"], "epochs": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    run = RunFolder(tmp_path / "run")
    command = ("train", scenes, "--config", tmp_path / "run.yaml", "-o", run.path)
    first = densemble(*command, "--keep-checkpoints")
    assert first.returncode == 0, first.stderr
    last = run.member(0, "resdeconv").last
    assert last.is_file() and run.cache.is_dir() and "removed" not in first.stderr
    second = densemble(*command, "--resume")
    assert second.returncode == 0 and "already trained, kept" in second.stderr
    assert not last.exists() and not run.cache.exists()
    third = densemble("train", scenes, "-o", run.path, "--resume")
    assert third.returncode == 0 and not run.cache.exists(), "decoded again for the assembly, and removed again"
    assert list(de.load(run.artifact).members) == ["resdeconv"]
