"""Lower precision of ONNX exports: the stored scores are those of evaluate, and limits of use are checked."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_networks import small_dense

import densemble as de
from densemble.errors import UsageError
from densemble.exporters import ExportOptions
from densemble.exporters.description import KEY
from densemble.exporters.graph import quiet
from densemble.exporters.onnx import open_onnx
from densemble.inference.image_prediction import ImagePrediction


@pytest.fixture(scope="module")
def data(scenes: Path) -> de.FolderData:
    return de.FolderData(scenes, task="saliency")


def description(path: Path) -> dict[str, Any]:
    return dict(json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}[KEY]))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_loss_is_measured_on_held_out_images(precision: str, data: de.FolderData, tmp_path: Path) -> None:
    ensemble = de.Ensemble([small_dense(0)]).eval()
    options = ExportOptions(precision=precision, data=data, split="val", maps=("mean",))  # type: ignore[arg-type]
    path = de.export(ensemble, tmp_path / "net.onnx", options=options)
    measured = description(path)["precision"]
    assert (measured["precision"], measured["split"], measured["images"]) == (precision, "val", len(data.val))
    assert measured["ensemble"]["cc"] == pytest.approx(de.evaluate(ensemble, data, "val")["cc"], abs=1e-6)
    assert measured["exported"] != measured["ensemble"]
    images = np.random.default_rng(0).integers(0, 256, (1, 37, 51, 3), dtype=np.uint8)
    (full,) = de.predict(ensemble, images, backend="eager", precision="fp32")
    assert isinstance(full, ImagePrediction)
    difference = np.abs(open_onnx(path)(images)["mean"][0] - full.mean.numpy()).max()
    assert 0 < difference < 0.05
    initializers = [tensor for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4]
    kernels = {tensor.data_type for tensor in initializers if np.prod(tensor.dims) > 64}
    assert kernels == {{"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]}


def test_a_lower_precision_needs_data_and_onnx(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give data to measure how much"):
        de.export(de.Ensemble([small_dense(0)]), tmp_path / "n.onnx", options=ExportOptions(precision="fp16"))
    with pytest.raises(UsageError, match="for onnx only"):
        de.export(de.Ensemble([small_dense(0)]), tmp_path / "n.pt2", options=ExportOptions(precision="fp16"))
    with pytest.raises(UsageError, match="precision 'int4' is unknown"):
        ExportOptions(precision="int4")  # type: ignore[arg-type]


def test_messages_of_libraries_are_hidden_and_no_handler_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with quiet():
        logging.warning("Please consider to run pre-processing before quantization")
    assert root.handlers == [] and root.level == logging.WARNING
    assert capsys.readouterr().err == ""
