"""Pretrained weights: where they are searched, how they are checked, and the error if they are missing."""

import pickle
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import squeezenet1_1

import densemble as de
from densemble.errors import WeightsError
from densemble.nets import backbones


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return squeezenet1_1(weights=None).state_dict()


def build(weights: str | Path | None = "DEFAULT", **options) -> de.DenseModel:  # type: ignore[no-untyped-def]
    return de.DenseModel("squeezenet1_1", weights=weights, **options)


def assert_loaded(model: de.DenseModel, expected: dict[str, torch.Tensor]) -> None:
    actual = model.backbone.network.state_dict()
    assert actual and all(torch.equal(actual[key], expected[key]) for key in actual)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state()}, path)
    else:
        save_file(state(), path)
    model = build(path)
    assert_loaded(model, state())
    count = len(model.backbone.network.state_dict())
    assert model.loaded == f"loaded {count}/{count} tensors from {path}"


def test_weights_dir_and_the_variable_come_before_any_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(state(), tmp_path / "torchvision-squeezenet1_1.safetensors")

    def refuse(*args: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(backbones, "_download", refuse)
    assert_loaded(build(weights_dir=tmp_path), state())
    monkeypatch.setenv("DENSEMBLE_WEIGHTS_DIR", str(tmp_path))
    assert_loaded(build(), state())
    with pytest.raises(AssertionError, match="downloaded"):
        build(
            "IMAGENET1K_V1"
        )  # the tag differs from the file's: torchvision-squeezenet1_1.IMAGENET1K_V1 does not exist


def test_a_file_without_the_classifier_is_complete(tmp_path: Path) -> None:
    features = {key: value for key, value in state().items() if not key.startswith("classifier")}
    save_file(features, tmp_path / "torchvision-squeezenet1_1.safetensors")
    assert_loaded(build(weights_dir=tmp_path), state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: [s.pop(key) for key in list(s)[:8]], r"8 of \d+ tensors are missing \(features\.0\.bias, "),
        (lambda s: s.update(nonsense=torch.zeros(1)), r"1 are unknown to the network \(nonsense\)"),
        (lambda s: s.update({"features.0.bias": torch.zeros(3)}), r"features\.0\.bias is \(3,\), needed \(64,\)"),
    ],
)
def test_weights_that_do_not_fit(change, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    values = state()
    change(values)
    save_file(values, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=message):
        build(tmp_path / "w.safetensors")


def test_a_few_missing_tensors_are_counted_and_named(tmp_path: Path) -> None:
    values = state()
    values.pop("features.0.weight")
    save_file(values, tmp_path / "w.safetensors")
    model = build(tmp_path / "w.safetensors")
    count = len(model.backbone.network.state_dict())
    assert model.loaded.startswith(f"loaded {count - 1}/{count} tensors from ")
    assert model.loaded.endswith("left at random: features.0.weight")


def test_partial_weights_load_only_with_allow_partial(tmp_path: Path) -> None:
    values = {key: value for key, value in state().items() if key.startswith("features.0.")} | {"odd": torch.zeros(2)}
    save_file(values, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="load what fits with allow_partial"):
        build(tmp_path / "w.safetensors")
    model = build(tmp_path / "w.safetensors", allow_partial=True)
    count = len(model.backbone.network.state_dict())
    assert model.loaded.startswith(f"loaded 2/{count} tensors from ")
    assert torch.equal(model.backbone.network.get_parameter("features.0.bias"), values["features.0.bias"])


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["pickle", "torch", "text", "list", "absent"])
def test_files_that_are_no_weights_run_no_code(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "torch":
        torch.save({"a": Evil()}, path)
    elif kind == "text":
        path.write_text("no weights")
    elif kind == "list":
        torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match=r"w\.pth"):
        build(path)
    assert not (tmp_path / "ran").exists()


def test_without_a_connection_the_missing_file_and_its_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the hub client waits between retries
    for name, file in (
        ("squeezenet1_1", r"torchvision-squeezenet1_1\.pth \(from https://"),
        ("timm/tf_efficientnet_lite0", r"timm-tf_efficientnet_lite0\.pth"),
    ):
        with pytest.raises(WeightsError, match=file + r".*weights_dir or \$DENSEMBLE_WEIGHTS_DIR.*weights to null"):
            de.DenseModel(name, weights_dir=tmp_path)


def test_a_hub_id_names_architecture_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response of the hub is mocked; the file is in the folder that is searched before a download."""
    import timm

    monkeypatch.setattr(timm.models, "load_model_config_from_hf", lambda name: ({}, "tf_efficientnet_lite0", {}))
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "timm-someone-lite.safetensors")
    model = de.DenseModel("hf-hub:someone/lite", weights_dir=tmp_path)
    assert model.spec.backbone == "timm/tf_efficientnet_lite0" and "timm-someone-lite.safetensors" in model.loaded
    assert_loaded(model, whole.state_dict())


def test_an_unreachable_hub_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(WeightsError, match=r"configuration of 'hf-hub:someone/lite' from the hub.*as timm/NAME"):
        de.DenseModel("hf-hub:someone/lite")


def test_unknown_weights_name_and_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no pretrained weights named 'V9'; there are: IMAGENET1K_V1"):
        build("V9")
    with pytest.raises(WeightsError, match=r"weights_dir .*absent' is not a folder"):
        build(weights_dir=tmp_path / "absent")


def test_networks_of_torchvision_do_not_import_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm takes long to import, also when an artifact is loaded."""
    monkeypatch.setitem(sys.modules, "timm", None)  # its import raises an error
    for name in ("resdeconv", "squeezenet1_1", "package.module:function"):
        backbones.require_name(name)
    with pytest.raises(ImportError):
        backbones.require_name("timm/resnet18")
