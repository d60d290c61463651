"""Options of `predict`: cascades, continued runs, and images read in windows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from densemble.ensemble.cascade import Cascade, Check, Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.inference.drawing import colour_values, palette
from densemble.inference.tiles import predict_large as large
from densemble.nets.dense import DenseModel
from densemble.storage.artifact import load, save
from densemble.tasks import SegmentationTask

Run = Callable[..., Any]


def policy(members: tuple[str, ...], cost: float, kept: float) -> Policy:
    return Policy(members, "entropy", 0.0, cost, kept, kept, kept)


CASCADE = Cascade(
    "miou", True, 20, 1.0, {"quick": 0.2, "slow": 0.8},
    (policy(("quick",), 0.2, 0.9), policy(("quick", "slow"), 1.0, 1.0)),
    (Check("budget", 0.3, 0.27, 0.85), Check("budget", 0.7, 0.65, None)),
)  # fmt: skip


def members(**options: Any) -> dict[str, DenseModel]:
    arguments = {"out_channels": 3, "weights": None, "head": "upsample", **options}
    models = {}
    for seed, name in enumerate(("quick", "slow")):
        torch.manual_seed(seed)
        models[name] = DenseModel("squeezenet1_1", **arguments).eval()
    return models


TASK = SegmentationTask(("a", "b", "c"))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    small = members(input_size=(48, 64), out_size=None)
    return save(Ensemble(small, task=TASK, cascade=CASCADE), tmp_path / "e.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def maps(folder: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(file)) for file in sorted(folder.glob("*_map.png"))]


def test_artifact_stores_the_cascade(artifact: Path) -> None:
    assert load(artifact).cascade == CASCADE


def test_budget_runs_only_affordable_members(artifact: Path, photos: Path, densemble: Run, tmp_path: Path) -> None:
    done = densemble("predict", artifact, photos, "-o", tmp_path / "out", "--budget", 0.4, "--save", "map")
    assert done.returncode == 0
    assert "cascade: quick" in done.stderr and "0.20 of all members' cost, 1.00 members per image" in done.stderr
    alone = save(Ensemble({"quick": members(input_size=(48, 64), out_size=None)["quick"]}, task=TASK),
                 tmp_path / "alone.safetensors")  # fmt: skip
    densemble("predict", alone, photos, "-o", tmp_path / "alone", "--save", "map")
    assert all(np.array_equal(*pair) for pair in zip(maps(tmp_path / "out"), maps(tmp_path / "alone"), strict=True))
    assert "costs 0.20 of all members and keeps 0.9000 of miou (fitted on these 20 images)\n" in done.stderr
    crossed = "fitted on one half of the images and measured on the other, --budget 0.3 costs 0.27 of all members and"
    assert f"cascade: {crossed} keeps 0.8500 of miou\n" in done.stderr
    whole = densemble("predict", artifact, photos, "-o", tmp_path / "whole", "--keep", 0.995, "--save", "map")
    assert "quick -> slow" in whole.stderr and "cascade: not cross-fitted" in whole.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep", "0.9", "--budget", "0.5"), "contradict"),
        (("--budget", "0.1"), "the cheapest policy"),
        (("--keep", "1.5"), "the lower bounds of all policies are at most"),
        (("--precision", "fp8"), "fp32, bf16, int8"),
        (("--backend", "tensorrt"), "onnxruntime, openvino"),
    ],
)
def test_invalid_options_are_usage_errors(
    artifact: Path, photos: Path, densemble: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = densemble("predict", artifact, photos, "-o", tmp_path / "out", *options)
    assert done.returncode == 2 and message in done.stderr


def test_keep_without_a_cascade_is_a_usage_error(photos: Path, densemble: Run, tmp_path: Path) -> None:
    plain = save(Ensemble(members(input_size=(48, 64))), tmp_path / "plain.safetensors")
    done = densemble("predict", plain, photos, "-o", tmp_path / "out", "--keep", "0.99")
    assert done.returncode == 2 and "no cascade" in done.stderr


def test_second_run_predicts_only_missing_images(artifact: Path, photos: Path, densemble: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert densemble("predict", artifact, photos, "-o", out).returncode == 0
    (out / "1_map.png").unlink()
    before = (out / "0_map.png").stat().st_mtime_ns
    done = densemble("predict", artifact, photos, "-o", out)
    assert "2 images were finished earlier" in done.stderr and (out / "1_map.png").is_file()
    assert (out / "0_map.png").stat().st_mtime_ns == before
    assert "1 of 3 images predicted" in done.stderr
    again = densemble("predict", artifact, photos, "-o", out, "--again")
    assert "finished earlier" not in again.stderr and (out / "0_map.png").stat().st_mtime_ns > before


def test_a_run_without_missing_images_loads_no_networks(
    artifact: Path, photos: Path, densemble: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("predict", artifact, photos, "-o", tmp_path / "out", "--save", "map", "--backend", "eager")
    first = densemble(*command, "--precision", "fp32")
    assert "of the time in networks (eager fp32)" in first.stderr and "3 of 3 images predicted" in first.stderr

    def refuse(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("densemble.storage.artifact.load", refuse)
    done = densemble(*command, "--precision", "fp32")
    assert done.returncode == 0 and "all 3 images were finished earlier" in done.stderr
    assert "predicted into" not in done.stderr
    with pytest.raises(AssertionError, match="loaded"):  # other settings: everything is predicted
        densemble(*command, "--precision", "bf16")


@pytest.mark.parametrize("options", [{"input_size": (48, 64), "out_size": None}, {"out_size": None}])
def test_windows_give_the_same_map_as_the_whole_image(
    densemble: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    artifact = save(Ensemble(members(**options), task=TASK), tmp_path / "ensemble.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (320, 448, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", pixels, tile=(64, 64))
    arguments = ("predict", artifact, tmp_path / "field.tif", "--save", "map,overlay,uncertainty", "--backend", "eager")
    assert densemble(*arguments, "-o", tmp_path / "whole", "--precision", "fp32").returncode == 0
    monkeypatch.setattr(large, "MOST_PIXELS", 1000)
    done = densemble(*arguments, "-o", tmp_path / "windows", "--precision", "fp32", "--tile", 192)
    assert done.returncode == 0 and "field.tif: in windows of 192 pixels" in done.stderr
    windows = tifffile.imread(tmp_path / "windows" / "field_map.tif")
    expected = np.asarray(Image.open(tmp_path / "whole" / "field_map.png"))
    exact = "exact tiles" in done.stderr or options.get("input_size") is not None
    assert windows.shape == expected.shape and windows.dtype == np.uint8
    assert (windows != expected).mean() <= (0.001 if exact else 0.2)
    entropy = tifffile.imread(tmp_path / "windows" / "field_uncertainty.tif")
    assert entropy.dtype == np.float32 and entropy.min() >= 0 and entropy.max() <= np.log(3) + 1e-5
    drawn = np.asarray(Image.open(tmp_path / "windows" / "field_overlay.png"))
    assert drawn.shape[0] > 320 and drawn.shape[1:] == (448, 3)
    view = np.asarray(Image.open(tmp_path / "windows" / "field_map_view.png").convert("RGB"))
    np.testing.assert_array_equal(view[:320], palette(3)[windows])
    spread = np.asarray(Image.open(tmp_path / "windows" / "field_uncertainty_view.png"))[:320]
    np.testing.assert_array_equal(spread, colour_values(entropy, 0, np.log(3), "magma"))
    whole = np.asarray(Image.open(tmp_path / "whole" / "field_overlay.png"))
    assert (drawn != whole).mean() <= (0.01 if exact else 0.3)


def test_prediction_of_a_zarr_is_a_zarr(artifact: Path, densemble: Run, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    pixels = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    zarr.create_array(tmp_path / "field.zarr", data=pixels, chunks=(64, 64, 3))
    done = densemble("predict", artifact, tmp_path / "field.zarr", "-o", tmp_path / "out", "--save", "map")
    assert done.returncode == 0, done.stderr
    assert zarr.open_array(tmp_path / "out" / "field_map.zarr", mode="r").shape == (100, 120)
