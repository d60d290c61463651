"""Invalid input on the command line: exit code, and a message with cause, location and remedy but no traceback."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Command = Callable[..., Any]
CONFIG = """\
task: saliency
input_size: 48x64
out_size: 12x16
members: [{backbone: resdeconv}]
training: {epochs: 1}
"""


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "data"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import densemble as de

    members = [de.DenseModel("resdeconv", input_size=(48, 64), out_size=(12, 16)) for _ in range(2)]
    return de.save(de.Ensemble(members), tmp_path_factory.mktemp("artifact") / "e.safetensors")


def assert_fails(result: Any, code: int, *patterns: str, lines: int = 3) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""
    message = result.stderr[result.stderr.rindex("densemble: ") :]
    assert message.count("\n") <= lines, message
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in: {message}"


@pytest.fixture
def train(densemble: Command, config: Path) -> Command:
    return lambda data, *more: densemble("train", data, "--config", config, "-o", config.parent / "run", *more)


def test_missing_target(train: Command, data: Path) -> None:
    (data / "train" / "targets" / "0003.png").unlink()
    assert_fails(train(data), 3, r"train/images/0003\.jpg", "no partner", r"--set data\.skip_unpaired=true")


def test_unequal_sizes(train: Command, data: Path) -> None:
    Image.new("L", (30, 20)).save(data / "train" / "targets" / "0003.png")
    assert_fails(train(data), 3, r"0003\.jpg' is 48x64.*0003\.png' is 20x30", "leave the pair out: --set", lines=8)


def test_truncated_jpeg(train: Command, data: Path) -> None:
    path = data / "val" / "images" / "0001.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    assert_fails(train(data), 3, r"val/images/0001\.jpg", "error: damaged", "copy it again", lines=5)


def test_unknown_member(train: Command, data: Path) -> None:
    assert_fails(train(data, "--members", "alexnte"), 2, "no backbone is named 'alexnte'", "did you mean 'alexnet'")


def test_unknown_config_key(train: Command, data: Path, config: Path) -> None:
    assert_fails(train(data, "--set", "training.epoch=3"), 2, r"unknown key 'training\.epoch'", "'epochs'")
    config.write_text(CONFIG + "inputsize: 5x5\n")
    assert_fails(train(data), 2, r"run\.yaml: unknown key 'inputsize'", "did you mean 'input_size'")


def test_wrong_task(train: Command, densemble: Command, data: Path, config: Path) -> None:
    assert_fails(
        densemble("train", data, "--task", "saliancy", "-o", config.parent / "run"),
        2,
        "'saliancy'",
        "there are: saliency",
    )
    assert_fails(train(data, "--task", "depth"), 2, "contradicts 'task: saliency'", "leave one of them out")


def test_empty_folder(train: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_fails(train(tmp_path / "empty"), 3, "empty' has none of the known layouts: it is empty", "train/targets")
    assert_fails(train(tmp_path / "absent"), 3, "no data folder at '.*absent'")


def test_unreadable_weights(train: Command, data: Path, config: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"these are no weights")
    config.write_text(CONFIG.replace("resdeconv", f"squeezenet1_1, weights: {tmp_path / 'bad.safetensors'}"))
    assert_fails(train(data), 6, r"cannot read weights '.*bad\.safetensors'", "download or copy the file again")


def test_weights_that_cannot_be_downloaded(
    train: Command, data: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(config.parent))
    config.write_text(CONFIG.replace("resdeconv", "squeezenet1_1"))
    assert_fails(train(data), 6, r"torchvision-squeezenet1_1\.pth", "weights_dir or .DENSEMBLE_WEIGHTS_DIR")


def test_damaged_artifact(densemble: Command, artifact: Path, scenes: Path, tmp_path: Path) -> None:
    damaged = bytearray(artifact.read_bytes())
    damaged[-5000] ^= 1
    (tmp_path / "e.safetensors").write_bytes(damaged)
    assert_fails(
        densemble("predict", tmp_path / "e.safetensors", scenes / "val" / "images", "-o", tmp_path / "out"),
        4,
        r"e\.safetensors' is damaged: tensor '.*' differs from its checksum",
        "copy it again",
    )
    assert_fails(densemble("evaluate", tmp_path / "none.safetensors", scenes, "--json"), 4, "no artifact at")


def test_output_folder_not_writable(
    densemble: Command, data: Path, config: Path, artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    remedy = "choose another folder"
    assert_fails(
        densemble("train", data, "--config", config, "-o", tmp_path / "file" / "run"), 6, "cannot write into", remedy
    )
    images = data / "val" / "images"
    assert_fails(
        densemble("predict", artifact, images, "-o", tmp_path / "file" / "out"), 6, "cannot write into", remedy
    )


def test_sources_and_options_of_predict(densemble: Command, artifact: Path, scenes: Path, tmp_path: Path) -> None:
    image = scenes / "val" / "images" / "0000.jpg"
    assert_fails(
        densemble("predict", artifact, tmp_path / "absent.jpg", "-o", tmp_path), 3, "absent.jpg'; check the path"
    )
    assert_fails(densemble("predict", artifact, image, "-o", tmp_path, "--save", "video"), 2, "map, overlay")
    assert_fails(densemble("predict", artifact, image, "-o", tmp_path, "--device", "tpu9"), 2, "device 'tpu9'")
    assert_fails(densemble("evaluate", artifact, scenes, "--split", "dev"), 2, "no split is named 'dev'")


def test_failed_images_do_not_stop_the_others(densemble: Command, artifact: Path, data: Path, tmp_path: Path) -> None:
    (data / "val" / "images" / "0001.jpg").write_bytes(b"no image")
    result = densemble("predict", artifact, data / "val" / "images", "-o", tmp_path / "out", "--save", "map")
    assert_fails(result, 5, "1 of 8 images failed, the others are done", r"0001\.jpg")
    assert len(list((tmp_path / "out").glob("*_map.png"))) == 7


def test_missing_option_and_unknown_command(densemble: Command, data: Path) -> None:
    result = densemble("train", data)
    assert result.returncode == 2 and "--out" in result.stderr and "Traceback" not in result.stderr
    assert densemble("nonsense").returncode == 2


def test_data_check_lists_all_problems_and_exits_with_3(densemble: Command, data: Path) -> None:
    (data / "train" / "targets" / "0003.png").unlink()
    Image.new("L", (30, 20)).save(data / "train" / "targets" / "0004.png")
    result = densemble("data", "check", data, "--task", "saliency", "--json")
    assert result.returncode == 3 and "Traceback" not in result.stderr
    facts = json.loads(result.stdout)
    assert {problem["kind"] for problem in facts["problems"] if problem["severity"] == "error"} >= {
        "unpaired",
        "unequal sizes",
    }
