"""Model repository of Triton Inference Server: a folder with an exported ONNX file and its configuration."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from densemble.errors import ArtifactError, UsageError
from densemble.exporters.description import KEY
from densemble.storage.writing import atomic_path, require_writable, write_text

LARGEST_BATCH = 8
"""Largest number of images of one size that Triton computes together."""

_TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64", 9: "TYPE_BOOL"}
"""Type of a tensor in ONNX -> in Triton."""


def require_model_name(path: Path) -> str:
    """Return the name of a model: the stem of its ONNX file.

    Raises:
        UsageError: the file is not named NAME.onnx, or the name holds other characters than letters, digits, ``_``,
            ``-`` and ``.``.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"'{path}': a Triton repository is made from an ONNX file; name it NAME.onnx")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", path.stem):
        raise UsageError(f"'{path}': the name of a Triton model holds letters, digits, '_', '-' and '.'; rename it")
    return path.stem


def write_triton(path: Path, repository: Path) -> Path:
    """Write an exported ONNX file into a model repository: ``NAME/1/model.onnx`` and ``NAME/config.pbtxt``.

    Args:
        path: file of :func:`densemble.export`; its stem is the name of the model.
        repository: folder that Triton serves; created if it is missing.

    Returns:
        The folder of the model.

    Raises:
        UsageError: onnx is not installed, or the name is not that of a model.
        ArtifactError: the file is not an export of densemble.
        ResourceError: the folder cannot be written.
    """
    name = require_model_name(path)
    text = configuration(name, path)
    folder = require_writable(repository / name)
    version = require_writable(folder / "1")
    for source in (path.with_name(f"{path.name}.data"), path):  # weights of more than 2 GB are in a second file
        if source.is_file():
            target = version / ("model.onnx" if source == path else source.name)
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
    write_text(folder / "config.pbtxt", text)
    return folder


def configuration(name: str, path: Path) -> str:
    """Configuration of a model in the text form of Triton's ``ModelConfig``.

    All images of a batch have one size, which Triton ensures: it joins requests of equal shapes only.

    Raises:
        UsageError: onnx is not installed.
        ArtifactError: the file is not an export of densemble.
    """
    try:
        import onnx
    except ImportError as error:
        raise UsageError("a Triton repository needs onnx: pip install 'densemble[onnx]'") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # the parser raises errors of many types
        raise ArtifactError(f"'{path}' is not an ONNX file: {error}") from error
    description = {entry.key: entry.value for entry in model.metadata_props}.get(KEY)
    if description is None:
        raise ArtifactError(f"'{path}' is not an export of densemble")
    description = json.dumps(json.loads(description))  # in ASCII
    batched = _dims(model.graph.input[0])[0] == -1
    lines = [f"name: {_quoted(name)}", 'platform: "onnxruntime_onnx"', f"max_batch_size: {LARGEST_BATCH * batched}"]
    lines += [_tensor("input", value, batched) for value in model.graph.input]
    lines += [_tensor("output", value, batched) for value in model.graph.output]
    if batched:
        lines.append("dynamic_batching { }")
    lines.append("instance_group [ { count: 1, kind: KIND_AUTO } ]")
    lines.append(f"parameters {{ key: {_quoted(KEY)} value {{ string_value: {_quoted(description)} }} }}")
    return "\n".join(lines) + "\n"


def _dims(value: Any) -> list[int]:
    """Shape of a tensor; -1 for sides of any length."""
    return [-1 if side.HasField("dim_param") else int(side.dim_value) for side in value.type.tensor_type.shape.dim]


def _tensor(field: str, value: Any, batched: bool) -> str:
    dims = ", ".join(str(side) for side in _dims(value)[batched:])
    data_type = _TYPES[value.type.tensor_type.elem_type]
    return f"{field} [ {{ name: {_quoted(value.name)}, data_type: {data_type}, dims: [ {dims} ] }} ]"


def _quoted(text: str) -> str:
    """A string of protobuf's text form. ``text`` is ASCII, so the escapes of JSON are those of protobuf."""
    return json.dumps(text)
