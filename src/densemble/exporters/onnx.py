"""Format ``onnx``: one ONNX file with the whole ensemble, run by onnxruntime."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from densemble.errors import ExportError, UsageError
from densemble.exporters.description import KEY
from densemble.exporters.graph import EnsembleGraph, first_line, quiet
from densemble.exporters.runner import Maps, Run
from densemble.inference.runtime.backends.libraries import load_onnxruntime
from densemble.shapes import Array
from densemble.storage.runs import strict

OPSET = 18
"""Version of the operators: the lowest with antialiased resizing, so that most runtimes accept it."""

_SCOPES = "pkg.torch.onnx.name_scopes"

LARGEST_FILE = 2_000_000_000
"""Largest size of one file in bytes; protobuf cannot read 2 GiB. Weights of a larger model are in NAME.onnx.data."""


def write_onnx(program: ExportedProgram, graph: EnsembleGraph, description: Mapping[str, Any], path: Path) -> None:
    """Write a traced ensemble as ONNX.

    Raises:
        UsageError: onnx or onnxscript is not installed.
        ExportError: an operation has no counterpart in ONNX.
    """
    try:
        with quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=OPSET)
    except ImportError as error:
        raise UsageError(f"ONNX export needs onnx and onnxscript ({error}): pip install 'densemble[onnx]'") from error
    except Exception as error:  # the exporter raises errors of many types
        raise ExportError(f"ONNX cannot express the ensemble: {first_line(error)}") from error
    assert exported is not None
    model = exported.model
    _name(model, graph)
    model.metadata_props[KEY] = json.dumps(strict({**description, "format": "onnx", "opset": OPSET}))
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    exported.save(path, external_data=weights > LARGEST_FILE)


def _name(model: Any, graph: EnsembleGraph) -> None:
    """Name nodes by their module, name inputs, outputs and axes, and remove the source paths that the exporter stores.

    Nodes of a member's network start with ``members.NAME.backbone`` or ``members.NAME.head``.
    """
    for part in (model.graph, *model.functions.values()):
        for number, node in enumerate(part):
            scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
            node.name = f"{scopes[-2] if len(scopes) > 2 else 'ensemble'}/{node.op_type}_{number}"
            node.doc_string = None
            node.metadata_props.clear()
        part.metadata_props.clear()
    images = model.graph.inputs[0]
    uint8 = graph.options.input_type == "uint8"
    symbols = ("batch", "height", "width", None) if uint8 else ("batch", None, "height", "width")
    names = {
        str(side): name for side, name in zip(images.shape, symbols, strict=True) if name and not isinstance(side, int)
    }
    values = [*model.graph.inputs, *model.graph.outputs, *(out for node in model.graph for out in node.outputs)]
    for value in values:
        if value.shape is not None:
            for axis, side in enumerate(value.shape):
                if str(side) in names:
                    value.shape[axis] = names[str(side)]
        if value.name in ("images", *graph.names):  # names of the exporter
            value.name = f"{value.name}_value"
    images.name = "images"
    for output, name in zip(model.graph.outputs, graph.names, strict=True):
        output.name = name


def open_onnx(path: Path) -> Run:
    """Open a written file in onnxruntime, on the CPU.

    Raises:
        UsageError: onnxruntime is not installed.
        ExportError: onnxruntime cannot open the file.
    """
    try:
        onnxruntime = load_onnxruntime()
    except ImportError as error:
        raise UsageError("verifying an ONNX file needs onnxruntime: pip install 'densemble[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the session raises errors of many types
        raise ExportError(f"onnxruntime cannot open the exported file: {first_line(error)}") from error
    names = [output.name for output in session.get_outputs()]

    def run(images: Array) -> Maps:
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return run
