"""openvino: runs the network as an OpenVINO model, on the CPU."""

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densemble.errors import ResourceError
from densemble.inference.runtime.backends.backend import (
    Backend,
    JoinableRunner,
    Precision,
    Runner,
    cannot_compile,
    native_bf16,
)
from densemble.inference.runtime.backends.libraries import load_openvino, no_telemetry
from densemble.inference.runtime.disk_cache import identity
from densemble.storage.user_cache import cache_part, prune
from densemble.storage.writing import atomic_files


@cache
def core() -> Any:
    """The only ``openvino.Core`` of the process, never freed.

    Each core replaces the stack on which signals are handled, and restores the previous one when it is freed. If two
    cores overlap, the restored stack no longer exists, and the next signal (Ctrl-C, the end of a worker) causes a
    segmentation fault (seen with OpenVINO 2026.4).
    """
    result = load_openvino().Core()
    result.get_property("CPU", "FULL_DEVICE_NAME")  # a core sets its stack with its first device
    return result


def convert(network: nn.Module, example: Tensor) -> Any:
    """Convert a network to an ``openvino.Model`` of the example's shape.

    Raises:
        UsageError: an operation of the network cannot be converted.
    """
    openvino = load_openvino()
    try:
        with torch.no_grad():
            exported = torch.export.export(network, (example,))
        with no_telemetry():
            model = openvino.convert_model(exported)
        model.reshape({model.inputs[0]: list(example.shape)})
    except Exception as error:  # the exporter and the converter raise errors of many types
        raise cannot_compile("openvino", error, line=-1) from error
    return model


def compile_openvino(
    network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]
) -> Runner:
    """Make a runner of the converted network, with the number of threads of PyTorch.

    Conversion takes seconds and is done once: the model is cached (:mod:`densemble.storage.user_cache`).

    Raises:
        UsageError: the network cannot be converted.
    """
    path = cache_part("openvino") / f"{identity(network, example, precision == 'int8')}.xml"
    model = _read_cached(path)
    if model is None:
        model = convert(network, example)
        if precision == "int8":
            from densemble.inference.runtime.backends.quantize import quantized

            core()  # before NNCF makes one
            model = quantized(model, calibration)
        _write_cached(model, path)
    return OpenVINORunner(model, precision)


def _read_cached(path: Path) -> Any:
    """The cached model, or ``None``."""
    if not path.with_suffix(".bin").is_file():  # the file that is written last
        return None
    try:
        model = core().read_model(path)
        path.touch()
        path.with_suffix(".bin").touch()
    except (RuntimeError, OSError):  # damaged: it is converted again
        return None
    return model


def _write_cached(model: Any, path: Path) -> None:
    openvino = load_openvino()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = path.with_suffix(".bin")
        with atomic_files(weights) as file:
            openvino.save_model(model, file.with_name(path.name), compress_to_fp16=False)
        prune(path.parent)
    except (OSError, RuntimeError, ResourceError):
        return  # without the cache, the next process converts again


class OpenVINORunner(JoinableRunner):
    """An ``openvino.Model``, compiled when it first runs.

    The precision is pinned: by default, OpenVINO uses bfloat16 if the processor supports it. The layers that int8
    leaves in floating point are computed in bfloat16 if the processor supports it.
    """

    def __init__(self, model: Any, precision: Precision) -> None:
        self.model, self.precision = model, precision
        self._request: Any = None
        self._tensor = load_openvino().Tensor
        self._lock = threading.RLock()

    def _compiled(self) -> Any:
        floats = "f32" if self.precision == "fp32" or not native_bf16(torch.device("cpu")) else "bf16"
        hints = {
            "INFERENCE_PRECISION_HINT": floats,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        return core().compile_model(self.model, "CPU", hints).create_infer_request()

    def __call__(self, images: Tensor) -> list[Tensor]:
        array = images.detach().contiguous().numpy()
        with self._lock:  # the next thread would overwrite the tensors of the only request
            if self._request is None:
                self._request = self._compiled()
            self._request.set_input_tensor(self._tensor(array, shared_memory=True))
            self._request.infer()
            return [torch.from_numpy(np.array(output.data)) for output in self._request.output_tensors]

    def rest(self) -> None:
        """See :meth:`JoinableRunner.rest`."""
        with self._lock:
            self._request = None

    @classmethod
    def join(cls, runners: Sequence["OpenVINORunner"]) -> "OpenVINORunner":
        """See :meth:`JoinableRunner.join`; OpenVINO runs the layers of a model one after the other in one memory."""
        openvino = load_openvino()
        models = [runner.model.clone() for runner in runners]
        for runner in runners:  # compiled requests hold the weights once more
            runner.rest()
        parameter = models[0].get_parameters()[0]
        for model in models[1:]:
            for use in list(model.get_parameters()[0].output(0).get_target_inputs()):
                use.replace_source_output(parameter.output(0))
        outputs = [result.input_value(0) for model in models for result in model.get_results()]
        results = [openvino.opset13.result(output) for output in outputs]
        return cls(openvino.Model(results, [parameter]), runners[0].precision)


def _missing(device: torch.device) -> str | None:
    if device.type != "cpu":
        return f"openvino runs on the CPU, the ensemble is on {device.type}"
    try:
        load_openvino()
    except ImportError:
        return "openvino is not installed: pip install 'densemble[openvino]'"
    return None


def _precisions(device: torch.device) -> tuple[Precision, ...]:
    return ("fp32", "bf16", "int8") if native_bf16(device) else ("fp32", "int8")


OPENVINO = Backend(compile_openvino, _missing, _precisions, runs_network=False, joinable=True)
