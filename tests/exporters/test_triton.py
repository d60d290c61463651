"""Triton's model repository: the configuration follows its schema and describes the exported file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from densemble.commands.export import export
from densemble.errors import ArtifactError, UsageError
from densemble.exporters.triton import configuration, write_triton

DESCRIPTION = {"schema": 1, "classes": ["Straße", 'a "quoted" \\ name\n']}


def exported(path: Path, batch: int | str = "batch", description: Any = DESCRIPTION) -> Path:
    """Write an ONNX file with the inputs, outputs and metadata of an export."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, "height", "width", 3])
    kinds = {"mean": TensorProto.FLOAT, "label": TensorProto.INT64, "included": TensorProto.BOOL}
    shapes: dict[str, list[int | str]] = {name: [batch, 3, "height", "width"] for name in kinds}
    shapes["label"] = [batch, "height", "width"]
    outputs = [helper.make_tensor_value_info(name, kinds[name], shapes[name]) for name in kinds]
    nodes = [
        helper.make_node("Transpose", ["images"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["channels_first"], ["mean"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["mean"], ["label"], axis=1, keepdims=0),
        helper.make_node("Cast", ["channels_first"], ["included"], to=TensorProto.BOOL),
    ]
    graph = helper.make_graph(nodes, "g", [images], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    if description is not None:
        helper.set_model_props(model, {"densemble": json.dumps(description, ensure_ascii=False)})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["batch", 1])
def test_the_configuration_follows_the_schema(batch: int | str, tmp_path: Path) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    from google.protobuf import text_format

    text = configuration("net", exported(tmp_path / "net.onnx", batch))
    config = text_format.Parse(text, schema.ModelConfig())
    axes: list[int] = [] if batch == "batch" else [1]
    assert (config.name, config.platform) == ("net", "onnxruntime_onnx")
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == ((0, False) if axes else (8, True))
    names = {schema.DataType.Name(tensor.data_type): list(tensor.dims) for tensor in (*config.input, *config.output)}
    assert names == {
        "TYPE_UINT8": [*axes, -1, -1, 3],
        "TYPE_FP32": [*axes, 3, -1, -1],
        "TYPE_INT64": [*axes, -1, -1],
        "TYPE_BOOL": [*axes, 3, -1, -1],
    }
    assert [tensor.name for tensor in config.output] == ["mean", "label", "included"]
    assert json.loads(config.parameters["densemble"].string_value) == DESCRIPTION


def test_the_repository_holds_the_file_and_its_weights(tmp_path: Path) -> None:
    path = exported(tmp_path / "net.onnx")
    (tmp_path / "net.onnx.data").write_bytes(np.arange(9).tobytes())
    folder = write_triton(path, tmp_path / "models")
    assert folder == tmp_path / "models" / "net"
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert files == {"config.pbtxt", "1/model.onnx", "1/net.onnx.data"}
    assert (folder / "1" / "model.onnx").read_bytes() == path.read_bytes()
    assert (folder / "config.pbtxt").read_text().startswith('name: "net"\nplatform: "onnxruntime_onnx"\n')


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made from an ONNX file"):  # before the artifact is loaded
        export(tmp_path / "absent.safetensors", tmp_path / "net.xml", triton=tmp_path / "models")
    with pytest.raises(UsageError, match=r"made from an ONNX file; name it NAME\.onnx"):
        write_triton(tmp_path / "net.xml", tmp_path)
    with pytest.raises(UsageError, match="holds letters, digits"):
        write_triton(tmp_path / "my net.onnx", tmp_path)
    with pytest.raises(ArtifactError, match="is not an export of densemble"):
        write_triton(exported(tmp_path / "other.onnx", description=None), tmp_path)
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(ArtifactError, match="is not an ONNX file"):
        write_triton(tmp_path / "text.onnx", tmp_path / "models")
    assert not (tmp_path / "models").exists()
