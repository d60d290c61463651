"""Code that a file names, or that a pickle holds, never runs unless the user asks for it.

The canary is a module whose import writes a file. It lies in the current folder, beside modules with the names of
installed ones, as in a folder that a stranger sends.
"""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from robustness.hostile_artifacts import Signed

import densemble as de
from densemble.errors import ArtifactError, DensembleError
from densemble.user_code import import_name

WRITTEN = Path(__file__).parents[1] / "written_before"
DATA = WRITTEN / "data"
NAMES = ("canary:part", "os:abort", "sys:exit", "builtins:breakpoint", "yaml:safe_load")
PLACES = ("backbone", "head", "loss")


class Payload:
    """A pickle that writes the file of the canary when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the canary and a run."""
    text = f"import pathlib\npathlib.Path({str(tmp_path / 'RAN')!r}).mkdir(exist_ok=True)\ndef part(*a): ...\n"
    for name in ("canary", "yaml", "torch", "timm", "lightning", "onnx"):
        (tmp_path / f"{name}.py").write_text(text)
    shutil.copytree(WRITTEN / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    return tmp_path


def settings(place: str, name: str) -> dict[str, Any]:
    member = {"backbone": "timm/test_resnet", "weights": None, **({} if place == "loss" else {place: name})}
    loss = {"loss": f"dice+0.5*{name}"} if place == "loss" else {}
    return {"task": "segmentation", "input_size": [16, 24], "training": {"epochs": 1}, "members": [member], **loss}


def write_yaml(path: Path, values: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("command", ["train", "resume", "retrain", "tune", "distill"])
def test_settings_of_a_file(
    command: str, folder: Path, densemble: Callable[..., Any], drawn: Callable[..., list[Any]], report: Any
) -> None:
    problems = []
    cases = drawn([(place, name) for place in PLACES for name in NAMES])
    for number, (place, name) in enumerate(cases):
        out = folder / f"out{number}"
        config = write_yaml(folder / "run.yaml", settings(place, name))
        words: list[Any] = ["train", DATA, "-o", out, "--config", config]
        if command in ("resume", "retrain"):
            write_yaml(out / "run.yaml", settings(place, name))
            words = ["train", DATA, "-o", out, f"--{command}"]
        elif command == "tune":
            backbone = name if place == "backbone" else "timm/test_resnet"
            if place == "backbone":  # typed by the user, so only the other parts of the file are refused
                config = write_yaml(folder / "run.yaml", settings("head", name))
                backbone = "timm/test_resnet"
            words = ["tune", DATA, "--backbone", backbone, "-o", out, "--config", config]
        elif command == "distill":
            config = write_yaml(folder / "run.yaml", settings("loss", name))
            words = [
                "distill",
                WRITTEN / "all.safetensors",
                DATA,
                "--student",
                "resdeconv",
                "-o",
                out / "s.safetensors",
            ]
            words += ["--config", config]
        done = densemble(*words)
        if done.returncode != 4 or f"--function {name}" not in done.stderr or (folder / "RAN").exists():
            problems.append(f"{place} {name}: exit {done.returncode} {done.stderr[-300:]}")
    report(cases=len(cases), problems=problems)


def hostile_run(folder: Path, place: str, name: str) -> Path:
    """Change a run so that its settings and records name code."""
    run = folder / "hostile"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "run", run)
    record = next(run.glob("members/01-*/member.json"))
    values = json.loads(record.read_text())
    if place in ("backbone", "head"):
        values["spec"][place] = name
    elif place == "state":
        state = json.loads((run / "run.json").read_text())
        state["task"]["loss_name"] = name
        (run / "run.json").write_text(json.dumps(state))
    elif place == "combine":
        chosen = {"select": "all", "combine": name, "weights": {"stem": 1.0}, "val": {"miou": 0.5}}
        (run / "ensemble.json").write_text(json.dumps(chosen))
        analysis = {"metric": "miou", "pictures": 8, "chosen": chosen, "rules": [{"name": name, "score": 0.5}]}
        (run / "analysis.json").write_text(json.dumps(analysis))
    elif place == "variant":
        variant = {"kind": "view", "of": "stem", "view": name, "weights": name, "from": [name], "val": {"miou": 0.9}}
        (run / "variants" / "v").mkdir(parents=True)
        (run / "variants" / "v" / "variant.json").write_text(json.dumps(variant))
    record.write_text(json.dumps(values))
    return run


def test_records_of_a_run(
    folder: Path, densemble: Callable[..., Any], drawn: Callable[..., list[Any]], report: Any
) -> None:
    problems = []
    out = ("-o", "a.safetensors", "--data", DATA)
    routes: dict[str, Callable[[Path], Any]] = {
        "leaderboard": lambda run: densemble("leaderboard", run),
        "html": lambda run: de.Run(run, DATA)._repr_html_(),
        "card": lambda run: densemble("card", WRITTEN / "all.safetensors", "--run", run),
        "assemble": lambda run: densemble("assemble", run, *out),
        "assemble all": lambda run: densemble("assemble", run, *out, "--select", "all"),
        "views": lambda run: densemble("assemble", run, *out, "--views", "hflip"),
        "soups": lambda run: densemble("assemble", run, *out, "--soups", "--snapshots"),
        "Run": lambda run: de.Run(run, DATA).assemble("all", report=None),
    }
    places = dict.fromkeys(routes, ("backbone", "head", "state"))  # refused before anything is assembled
    places |= {route: (*places[route], "combine", "variant") for route in ("leaderboard", "html", "card")}
    cases = drawn([(route, place, name) for route in routes for place in places[route] for name in NAMES])
    for route, place, name in cases:
        try:
            routes[route](hostile_run(folder, place, name))
        except DensembleError:
            pass
        except Exception as error:
            problems.append(f"{route} {place} {name}: {type(error).__name__} {error}")
        if (folder / "RAN").exists():
            problems.append(f"{route} {place} {name}: RAN")
            (folder / "RAN").rmdir()
    report(cases=len(cases), problems=problems)


def test_artifacts(folder: Path, densemble: Callable[..., Any], drawn: Callable[..., list[Any]], report: Any) -> None:
    problems = []
    original = Signed(WRITTEN / "all.safetensors")
    image = next((DATA / "val" / "images").iterdir())
    file = folder / "model.safetensors"
    routes: dict[str, Callable[[], Any]] = {
        "load": lambda: de.load(file),
        "from_pretrained": lambda: de.from_pretrained(folder),
        "predict": lambda: densemble("predict", file, image, "-o", "out"),
        "evaluate": lambda: densemble("evaluate", file, DATA),
        "benchmark": lambda: densemble("benchmark", file, "--size", "16x24"),
        "export": lambda: densemble("export", file, "--format", "torch", "-o", "e.pt2"),
        "card": lambda: densemble("card", file),
        "distill": lambda: densemble("distill", file, DATA, "--student", "resdeconv", "-o", "s.safetensors"),
        "save_pretrained": lambda: de.save_pretrained(file, folder / "hub"),
    }
    cases = drawn([(r, p, n) for r in routes for p in ("backbone", "head", "combine", "loss", "view") for n in NAMES])
    for route, place, name in cases:
        values = json.loads(json.dumps(original.description))
        if place == "combine":
            values["combine"] = name
        elif place == "loss":
            values["task"]["loss_name"] = name
        else:
            values["members"][0][place] = name
        original.write(file, json.dumps(values))
        try:
            done = routes[route]()
            refused = getattr(done, "returncode", 0) == 4
        except ArtifactError:
            refused = True
        if not refused or (folder / "RAN").exists():
            problems.append(f"{route} {place} {name}: not refused")
    report(cases=len(cases), problems=problems)


def damage(run: Path, file: Path) -> dict[str, Path]:
    """Replace the binary files of a run by pickles; return them by name."""
    payload = Payload(file)
    member = next(run.glob("members/01-*"))
    objects = np.empty((1,), object)
    objects[0] = payload
    np.save(member / "val_predictions.npy", objects, allow_pickle=True)
    np.save(run / "mean_map.npy", objects, allow_pickle=True)
    torch.save({"state_dict": payload}, member / "last.ckpt")
    with (member / "weights.safetensors").open("wb") as opened:
        pickle.dump(payload, opened)
    torch.save(payload, run / "weights.pth")
    return {"weights": run / "weights.pth"}


@pytest.mark.parametrize(
    "route",
    [
        *("weights", "artifact", "target.npy", "target.npz"),
        *(pytest.param(route, marks=pytest.mark.stress) for route in ("assemble", "resume", "decoded")),
    ],
)
def test_pickles_are_not_loaded(route: str, folder: Path, densemble: Callable[..., Any]) -> None:
    run, ran = hostile_run(folder, "none", ""), folder / "RAN"
    files = damage(run, ran)
    if route == "assemble":
        done = densemble("assemble", run, "-o", "a.safetensors", "--data", DATA)
        assert done.returncode in (4, 5)
    elif route == "resume":
        record = next(run.glob("members/01-*/member.json"))
        record.write_text(json.dumps({**json.loads(record.read_text()), "state": "running"}))
        with contextlib.suppress(pickle.UnpicklingError):
            densemble("train", DATA, "-o", run, "--resume")
    elif route == "weights":
        config = write_yaml(folder / "r.yaml", settings("head", "fpn"))
        weights = f"members.0.weights={files['weights']}"
        done = densemble("train", DATA, "-o", "new", "--config", config, "--set", weights)
        assert done.returncode == 6 and "does not contain only tensors" in done.stderr
    elif route == "artifact":
        shutil.copy(next(run.glob("members/01-*/weights.safetensors")), folder / "model.safetensors")
        done = densemble("predict", folder / "model.safetensors", DATA / "val" / "images", "-o", "out")
        assert done.returncode == 4
    elif route == "decoded":
        config = write_yaml(folder / "r.yaml", settings("head", "fpn"))
        assert densemble("train", DATA, "-o", "new", "--config", config, "--keep-checkpoints").returncode == 0
        for array in (folder / "new" / "cache").rglob("*.npy"):
            shutil.copy(run / "mean_map.npy", array)
        shutil.rmtree(folder / "new" / "members")
        assert densemble("train", DATA, "-o", "new", "--resume").returncode == 0
    else:
        shutil.copytree(DATA, folder / "data")
        for target in (folder / "data" / "train" / "targets").iterdir():
            target.unlink()
            hostile = target.with_suffix(Path(route).suffix)
            if hostile.suffix == ".npy":
                shutil.copy(run / "mean_map.npy", hostile)
            else:
                np.savez(hostile, np.array([Payload(ran)], object))
        assert densemble("data", "check", folder / "data", "--task", "segmentation").returncode == 3
    assert not ran.exists()


def test_an_allowed_name_is_found_in_the_current_folder_after_all_others(folder: Path) -> None:
    assert callable(import_name("canary:part")) and sys.path[-1] == str(folder)
    assert not import_name("yaml:safe_load").__module__.startswith("canary")
    (folder / "neighbour.py").write_text("VALUE = 3")
    assert import_name("neighbour:VALUE") == 3 and sys.path.count(str(folder)) == 1
    for name in ("canary", "neighbour"):
        sys.modules.pop(name)


def test_an_absent_module_leaves_the_path_unchanged(folder: Path) -> None:
    before = list(sys.path)
    with pytest.raises(ModuleNotFoundError):
        import_name("no_such_module:part")
    assert sys.path == before


@pytest.mark.slow
@pytest.mark.parametrize("start", [["-m", "densemble"], ["-P", "-m", "densemble"]])
def test_modules_of_the_current_folder_replace_none(start: list[str], folder: Path) -> None:
    command = [sys.executable, *start, "card", str(WRITTEN / "all.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not (folder / "RAN").exists()
