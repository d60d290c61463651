"""The code and the commands of README, executed word for word on drawn scenes, with random weights of AlexNet."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torchvision
from safetensors.torch import save_file
from test_documented_commands import BLOCK, COMMENT, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The words of each ``densemble`` command of README, in their order."""
    lines = [line for language, block in BLOCK.findall(README) if not language
             for line in block.replace("\\\n", " ").splitlines()]  # fmt: skip
    return [shlex.split(COMMENT.sub("", line))[1:] for line in lines if line.startswith("densemble ")]


@pytest.fixture
def folder(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with ``my-data``, ``photos`` and weights, in which the commands run."""
    shutil.copytree(scenes, tmp_path / "my-data")
    (tmp_path / "photos").mkdir()
    for image in sorted((scenes / "val" / "images").iterdir())[:2]:
        shutil.copy(image, (tmp_path / "photos" / image.name).with_suffix(image.suffix))
    (tmp_path / "weights").mkdir()
    save_file(torchvision.models.alexnet().state_dict(), tmp_path / "weights" / "torchvision-alexnet.safetensors")
    monkeypatch.setenv("DENSEMBLE_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_of_the_readme(folder: Path, densemble: Callable[..., Any]) -> None:
    executed = commands()
    assert [words[0] for words in executed][:3] == ["train", "leaderboard", "predict"] and len(executed) >= 8
    for words in executed:
        done = densemble(*words)
        assert done.returncode in (0, 5) if words[:2] == ["data", "check"] else done.returncode == 0, (
            words,
            done.stderr,
        )
    names = {path.name for path in (folder / "out").iterdir()}
    assert {name.rpartition("_")[2] for name in names if name.endswith(".png")} == {
        "map.png", "overlay.png", "uncertainty.png"
    }  # fmt: skip
    assert (folder / "mean.onnx").is_file() and (folder / "check.html").is_file()


@pytest.mark.slow
def test_the_python_of_the_readme(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for image in (folder / "photos").iterdir():  # the code reads photos/*.jpg
        image.rename(image.with_suffix(".jpg"))
    values: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), values)
    assert len(values["ens"].members) in (1, 2)
    assert len(list((folder / "out").glob("*_overlay.png"))) == 2
