"""Examples: the settings are valid, the script runs, and the notebook was executed completely."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import densemble as de
from densemble.config import SEVEN, make_config, read_config

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ALL7MODELS = EXAMPLES / "all7models"


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_settings_are_valid(path: Path) -> None:
    config = make_config(read_config(path), str(path))
    assert len(config.members) >= 3 and len(set(config.member_names())) == len(config.members)


def test_all7models_has_seven_members_and_their_output_size() -> None:
    config = make_config(read_config(ALL7MODELS / "run.yaml"))
    assert tuple(member.backbone for member in config.members) == SEVEN
    assert config.out_size == (48, 64) and config.task == "saliency"


def test_all7models_script_can_be_loaded() -> None:
    assert callable(runpy.run_path(str(ALL7MODELS / "all7models.py"))["main"])


@pytest.mark.slow  # trains seven large networks
def test_all7models_script(scenes: Path, tmp_path: Path) -> None:
    small = ["input_size=64x96", "out_size=8x12", "training.epochs=1", "training.batch_size=12"]
    small += [f"members.{i}.{setting}" for i in range(7) for setting in ("epochs=1", "min_size=4x6")]
    words = [
        sys.executable,
        str(ALL7MODELS / "all7models.py"),
        str(scenes),
        "-o",
        str(tmp_path / "run"),
        "--from-scratch",
    ]
    for setting in small:
        words += ["--set", setting]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "by-hand: 5 networks" in done.stdout and "by-score" in done.stdout
    by_hand = de.load(tmp_path / "run" / "by-hand.safetensors")
    assert list(by_hand.members) == ["densenet201", "inception_v3", "resnet152", "vgg19_bn", "resdeconv"]
    assert len(list((tmp_path / "run" / "predictions").glob("*_overlay.png"))) == 4


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_were_executed_without_errors(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any({"image/jpeg", "image/png"} & output.get("data", {}).keys() for output in outputs)
    assert not re.search(r"(?<![\w.:/])/(tmp|work|home|root)/", path.read_text(encoding="utf-8")), "a path of a machine"


def test_the_notebook_of_the_seven_models_trains_and_selects() -> None:
    notebook = nbformat.read(ALL7MODELS / "all7models.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "vgg19_bn: done" in text and "chosen:" in text
