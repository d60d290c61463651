"""Format ``openvino``: an OpenVINO model, ``NAME.xml`` with its weights in ``NAME.bin``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from densemble.errors import ExportError, UsageError
from densemble.exporters.description import KEY
from densemble.exporters.graph import EnsembleGraph, first_line
from densemble.exporters.onnx import write_onnx
from densemble.exporters.runner import Maps, Run
from densemble.inference.runtime.backends.libraries import load_openvino, no_telemetry
from densemble.inference.runtime.backends.openvino import core
from densemble.shapes import Array
from densemble.storage.runs import strict
from densemble.storage.writing import temporary_folder


def write_openvino(program: ExportedProgram, graph: EnsembleGraph, description: Mapping[str, Any], path: Path) -> None:
    """Write a traced ensemble as an OpenVINO model.

    Raises:
        UsageError: openvino is not installed.
        ExportError: an operation has no counterpart in OpenVINO.
    """
    try:
        openvino = load_openvino()
    except ImportError as error:
        raise UsageError("OpenVINO export needs openvino: pip install 'densemble[openvino]'") from error
    # OpenVINO reads ONNX, but not all operations of torch.export: antialiased resizing is missing.
    with temporary_folder(path.parent) as folder:
        file = folder / "model.onnx"
        write_onnx(program, graph, description, file)
        try:
            with no_telemetry():
                model = openvino.convert_model(file)
        except Exception as error:  # the converter raises errors of many types
            raise ExportError(f"OpenVINO cannot express the ensemble: {first_line(error)}") from error
    model.set_rt_info(json.dumps(strict({**description, "format": "openvino"})), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def open_openvino(path: Path) -> Run:
    """Compile a written model for the CPU, in single precision.

    Raises:
        ExportError: OpenVINO cannot compile the model.
    """
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        compiled = core().compile_model(core().read_model(path), "CPU", hints)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot compile the exported model: {first_line(error)}") from error
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: Array) -> Maps:
        results = compiled([images])
        return {name: results[index].copy() for index, name in enumerate(names)}

    return run
