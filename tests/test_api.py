"""The public names, and the code of the README."""

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

import densemble as de
from densemble.errors import PartialError, UsageError
from densemble.versions import installed_versions


def test_every_public_name_is_there() -> None:
    assert set(de.__all__) <= set(dir(de))
    assert all(getattr(de, name) is not None for name in de.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        de.nonsense  # noqa: B018


def test_importing_densemble_does_not_import_torch_and_turns_usage_reports_off() -> None:
    code = (
        "import sys, densemble; print('torch' in sys.modules, densemble.__version__)\n"
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", de.__version__, "True"]


def test_train_assemble_save_load_predict(scenes: Path, tmp_path: Path) -> None:
    data = de.FolderData(scenes, task="saliency")
    members = ["resdeconv", {"backbone": "squeezenet1_1", "weights": None}]
    settings = {"input_size": (48, 64), "out_size": (12, 16), "training": {"epochs": 1}}
    run = de.train(data, members=members, out=tmp_path / "run", report=lambda line: None, **settings)
    ensembles = {"ensemble (greedy)", "ensemble (greedy), cross-fitted"}
    rows = {"resdeconv", "squeezenet1_1", *ensembles, "baseline (mean map)"}
    assert set(run.leaderboard().index) == rows and run.folder.artifact.is_file()
    ens = run.assemble(select="all", combine="mean")
    de.save(ens, tmp_path / "gaze.safetensors")
    again = de.load(tmp_path / "gaze.safetensors")
    x = torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), ens(x))
        again.load_state_dict(ens.state_dict())
    for p in de.predict(again, f"{scenes}/val/images/*.jpg"):
        p.save(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*_map.png"))) == 8
    assert de.evaluate(again, data)["cc"] == pytest.approx(ens.metrics["val"]["cc"], abs=2e-3)


@pytest.mark.slow
def test_a_folder_keeps_its_split_through_training_and_assembly(scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes / "train", tmp_path / "data")
    data = de.FolderData(tmp_path / "data", "saliency", val_fraction=0.5, seed=3)
    settings = {"input_size": (48, 64), "out_size": (12, 16), "training": {"epochs": 1}}
    run = de.train(data, ["resdeconv"], tmp_path / "run", report=lambda line: None, **settings)
    assert len(data.val) == 12 and run.assemble("all").metrics["val"]["cc"] is not None
    with pytest.raises(UsageError, match="contradicts the FolderData's 'saliency'"):
        de.train(data, ["resdeconv"], tmp_path / "other", task="depth")


@pytest.mark.slow
def test_a_failed_member_is_an_error_and_the_others_can_be_opened(scenes: Path, tmp_path: Path) -> None:
    members = ["resdeconv", {"backbone": "resdeconv", "name": "diverges", "learning_rate": 1e30}]
    settings = {"input_size": (48, 64), "out_size": (12, 16), "training": {"epochs": 1}}
    with pytest.raises(PartialError, match=r"diverges: .*the loss became"):
        de.train(scenes, members, tmp_path / "run", "saliency", report=lambda line: None, **settings)
    assert list(de.Run(tmp_path / "run").trained()) == ["resdeconv"]
    with pytest.raises(UsageError, match="needs task="):
        de.train(scenes, members, tmp_path / "other")


def test_without_an_installation_the_version_is_that_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("densemble.versions.version", missing)
    assert installed_versions("densemble", "torch") == {"densemble": de.__version__, "torch": None}
