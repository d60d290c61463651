"""All commands in sequence, JSON output without other text, and help without slow imports."""

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file
from small_run import SMALL_RUN
from torchvision.models import squeezenet1_1

from densemble.commands.demo import MEMBERS
from densemble.training.callbacks import EpochRecord

PROGRAM = [sys.executable, "-m", "densemble"]
Command = Callable[..., Any]


@pytest.fixture
def command(densemble: Command) -> Command:
    def run(*arguments: object, code: int = 0) -> Any:
        result = densemble(*arguments)
        assert result.returncode == code, result.stderr
        return result

    return run


def test_help_does_not_import_slow_libraries() -> None:
    program = (
        "import sys; from densemble.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'torchvision', 'timm', 'lightning', 'pandas'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("demo", "doctor", "backbones", "cuts", "data", "train", "assemble", "leaderboard", "evaluate"):
        assert name in shown
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_help_is_quick() -> None:
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        subprocess.run([*PROGRAM, "--help"], capture_output=True, timeout=60, check=True)
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds[1:]) < 1.0, seconds


def test_train_assemble_evaluate_predict(command: Command, scenes: Path, tmp_path: Path) -> None:
    config, run, artifact, out = (tmp_path / name for name in ("run.yaml", "run", "gaze.safetensors", "out"))
    config.write_text(yaml.safe_dump({**SMALL_RUN, "members": SMALL_RUN["members"][:2]}))
    done = command("train", scenes, "--config", config, "--set", "training.epochs=1", "-o", run, "--json")
    assert done.stderr.count("squeezenet1_1: epoch 1/1 loss") == 1 and "assembling 5/5 report" in done.stderr
    assert "\x1b" not in done.stderr and "\r" not in done.stderr
    made = json.loads(done.stdout)
    assert [(row["name"], row["state"], row["epochs"]) for row in made["members"]] == [
        ("squeezenet1_1", "done", 1), ("resdeconv", "done", 1),
    ]  # fmt: skip
    assert made["artifact"] == str(run / "ensemble.safetensors") and made["metric"] == "cc"
    assert made["bytes"] == (run / "ensemble.safetensors").stat().st_size and Path(made["report"]).is_file()
    assert "ensemble of" in done.stderr and (run / "ensemble.safetensors").is_file()
    assert yaml.safe_load((run / "run.yaml").read_text())["training"]["epochs"] == 1

    options = ("--select", "resdeconv,squeezenet1_1", "--weights", "1,3")
    quiet = command("assemble", run, "-o", artifact, *options, "--json", "--quiet")
    made = json.loads(quiet.stdout)
    assert quiet.stderr == "" and made["artifact"] == str(artifact) and made["bytes"] == artifact.stat().st_size
    assert made["weights"] == {"resdeconv": 0.25, "squeezenet1_1": 0.75} and made["dropped"] == []
    rows = json.loads(command("leaderboard", run, "--json").stdout)["leaderboard"]
    ensemble = "ensemble (resdeconv,squeezenet1_1)"
    names = {"resdeconv", "squeezenet1_1", ensemble, f"{ensemble}, cross-fitted", "baseline (mean map)"}
    assert {row["name"] for row in rows} == names
    assert "cc" in command("leaderboard", run).stdout.splitlines()[0]

    scores = json.loads(command("evaluate", artifact, scenes, "--json").stdout)
    assert (
        scores["split"] == "val" and scores["images"] == 8 and set(scores["members"]) == {"resdeconv", "squeezenet1_1"}
    )
    assert {"cc", "nss", "sim", "kld", "auc_judd"} <= set(scores)
    assert next(row for row in rows if row["name"] == "resdeconv")["cc"] == pytest.approx(
        scores["members"]["resdeconv"]["cc"], abs=1e-4
    )
    ensemble = next(row for row in rows if row["name"].startswith("ensemble"))
    assert ensemble["cc"] == pytest.approx(scores["cc"], abs=2e-3)  # from predictions cached as float16
    assert "ensemble" in command("evaluate", artifact, scenes, "--split", "train").stdout

    # Images with equal names from two folders do not overwrite each other; an image given twice is predicted once.
    images = [scenes / "train" / "images" / "0000.jpg", scenes / "val" / "images" / "0000.jpg"]
    sources = (*images, f"{scenes}/val/images/000[01].jpg")
    made = json.loads(command("predict", artifact, *sources, "-o", out, "--save", "map,npy", "--json").stdout)
    files = [Path(file) for prediction in made["predictions"] for file in prediction["files"]]
    assert (made["images"], made["predicted"], made["earlier"], made["failed"]) == (3, 3, 0, [])
    assert set(files) == {file for file in out.iterdir() if file.suffix in (".png", ".npy")}
    maps = sorted(path.name for path in out.glob("*_map.png"))
    assert len(maps) == 3 and "images_0000_jpg_map.png" in maps and "0001_map.png" in maps
    assert Image.open(out / "0001_map.png").size == (64, 48)
    assert len(list(out.glob("*.npy"))) == 3


def test_data_commands(command: Command, scenes: Path, tmp_path: Path) -> None:
    facts = json.loads(command("data", "check", scenes, "--task", "saliency", "--json").stdout)
    assert facts["ok"] and facts["splits"]["train"]["pairs"] == 24
    assert command("data", "check", scenes).stdout.rstrip().endswith("ok")
    command("data", "show", scenes, "-o", tmp_path / "preview.png", "--count", 4)
    assert Image.open(tmp_path / "preview.png").size[0] > 800


def test_backbones_cuts_and_doctor(command: Command) -> None:
    names = json.loads(command("backbones", "res*", "--json").stdout)["backbones"]
    assert {"resnet152", "resdeconv"} <= set(names)
    result = json.loads(command("cuts", "alexnet", "--size", "240x320", "--json").stdout)
    assert result["size"] == [240, 320]
    first = result["cuts"][0]
    measured = {"node", "channels", "height", "width", "stride", "macs", "separates", "input_size", "listed"}
    assert set(first) == measured | {"parameters", "receptive_field", "offset", "kind", "why"}
    assert result["auto"]["why"].startswith("the deepest of")
    assert "features.12" in command("cuts", "alexnet").stdout
    facts = json.loads(command("doctor", "--json").stdout)
    assert facts["ok"] and facts["versions"]["torch"] and facts["backbones"] > 1000


@pytest.mark.slow
def test_weights_that_do_not_fit_can_be_replaced_on_resume(command: Command, scenes: Path, tmp_path: Path) -> None:
    members = ["squeezenet1_1", "resdeconv"]
    values = {**SMALL_RUN, "members": members, "training": {"epochs": 1}, "weights_dir": str(tmp_path)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    save_file(
        squeezenet1_1(num_classes=2).features[:2].state_dict(), tmp_path / "torchvision-squeezenet1_1.safetensors"
    )
    failed = command("train", scenes, "--config", tmp_path / "run.yaml", "-o", tmp_path / "run", "--json", code=5)
    states = {row["name"]: row["state"] for row in json.loads(failed.stdout)["members"]}
    assert states == {"squeezenet1_1": "failed", "resdeconv": "done"}
    assert "torchvision-squeezenet1_1.safetensors' do not fit" in failed.stderr and "resdeconv: done" in failed.stderr
    (tmp_path / "good").mkdir()
    save_file(squeezenet1_1(weights=None).state_dict(), tmp_path / "good" / "torchvision-squeezenet1_1.safetensors")
    resume = ("train", scenes, "-o", tmp_path / "run", "--resume")
    done = command(*resume, "--set", f"weights_dir={tmp_path / 'good'}")
    assert "squeezenet1_1: done" in done.stderr and "resdeconv: already trained, kept" in done.stderr
    assert "differs from the settings" in command(*resume, "--set", "training.epochs=2", code=2).stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_stopped_training_prints_the_command_that_resumes_it(
    command: Command, number: int, code: int, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_epoch = EpochRecord.on_train_epoch_end

    def end_epoch_and_stop(record: EpochRecord, trainer: Any, module: Any) -> None:
        end_epoch(record, trainer, module)
        if len(record.rows) == 2:
            signal.raise_signal(number)

    config = tmp_path / "run.yaml"
    values = {**SMALL_RUN, "members": ["resdeconv"], "training": {**SMALL_RUN["training"], "epochs": 4}}
    config.write_text(yaml.safe_dump(values))
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # SIGINT is ignored if tests run in the background
    with monkeypatch.context() as patch:
        patch.setattr(EpochRecord, "on_train_epoch_end", end_epoch_and_stop)
        stopped = command("train", scenes, "--config", config, "-o", tmp_path / "run", code=code)
    signal.signal(signal.SIGINT, before)
    assert "Traceback" not in stopped.stderr and "--resume" in stopped.stderr
    resumed = command("train", scenes, "-o", tmp_path / "run", "--resume")
    assert resumed.stderr.count("resdeconv: epoch") == 2
    record = json.loads((tmp_path / "run" / "members" / "01-resdeconv" / "member.json").read_text())
    assert record["state"] == "done" and record["epochs"] == 4


@pytest.mark.slow
def test_demo(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densemble.commands.demo.SCENES", {"train": 16, "val": 12, "size": (48, 64)})
    monkeypatch.setattr("densemble.commands.demo.MEMBERS", [MEMBERS[0], MEMBERS[2]])
    shown = json.loads(command("demo", "-o", tmp_path / "demo", "--epochs", 1, "--json").stdout)
    assert Path(shown["artifact"]).is_file() and shown["images"] == 12
    names = {path.name for path in (tmp_path / "demo" / "predictions").iterdir()}
    assert {"0000_map.png", "0000_overlay.png", "0000_uncertainty.png"} <= names and len(names) == 24
    assert (tmp_path / "demo" / "run" / "leaderboard.csv").is_file()
    assert "choose another folder" in command("demo", "-o", tmp_path / "demo", code=2).stderr
