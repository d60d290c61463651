"""openvino: the network as an OpenVINO model, on the CPU."""

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends.backend import Backend, JoinableRunner, Precision, Runner, native_bf16
from densemble.inference.runtime.backends.libraries import load_openvino, no_telemetry
from densemble.inference.runtime.disk_cache import cache_folder, identity, prune


@cache
def core() -> Any:
    """The one ``openvino.Core`` of the process, never freed.

    Each core replaces the stack on which signals are handled and, when it is freed, puts back the one that it found:
    after two cores that overlap, that one is gone, and the next signal (Ctrl-C, the end of a worker) is a
    segmentation fault (seen with OpenVINO 2026.4).
    """
    made = load_openvino().Core()
    made.get_property("CPU", "FULL_DEVICE_NAME")  # a core sets its stack with its first device
    return made


def convert(network: nn.Module, example: Tensor) -> Any:
    """The network as an ``openvino.Model`` of the example's shape.

    Raises:
        UsageError: it has an operation that cannot be converted.
    """
    openvino = load_openvino()
    try:
        with torch.no_grad():
            exported = torch.export.export(network, (example,))
        with no_telemetry():
            model = openvino.convert_model(exported)
        model.reshape({model.inputs[0]: list(example.shape)})
    except Exception as error:  # the exporter and the converter raise errors of their own
        reason = next(
            (line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__
        )
        raise UsageError(f"openvino cannot take this network: {reason}; use another backend") from error
    return model


def compile_openvino(
    network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]
) -> Runner:
    """A runner of the converted network, with as many threads as PyTorch has.

    Converting takes seconds and is done once: the model is kept (:mod:`densemble.inference.runtime.disk_cache`).

    Raises:
        UsageError: the network cannot be converted.
    """
    kept = cache_folder() / "openvino" / f"{identity(network, example, precision == 'int8')}.xml"
    model = _kept(kept)
    if model is None:
        model = convert(network, example)
        if precision == "int8":
            from densemble.inference.runtime.backends.quantize import quantized

            core()  # before NNCF makes its own
            model = quantized(model, calibration)
        _keep(model, kept)
    return OpenVINORunner(model, precision)


def _kept(path: Path) -> Any:
    """The model that was kept, or ``None``."""
    if not path.with_suffix(".bin").is_file():  # the last to be written
        return None
    try:
        model = core().read_model(path)
        path.touch()
        path.with_suffix(".bin").touch()
    except (RuntimeError, OSError):  # damaged: it is made again
        return None
    return model


def _keep(model: Any, path: Path) -> None:
    openvino = load_openvino()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            made = Path(folder) / "model.xml"
            openvino.save_model(model, made, compress_to_fp16=False)
            made.replace(path)
            made.with_suffix(".bin").replace(path.with_suffix(".bin"))
        prune(path.parent)
    except (OSError, RuntimeError):
        return  # it works without, only later


class OpenVINORunner(JoinableRunner):
    """An ``openvino.Model``, compiled when it first runs.

    The precision is pinned: OpenVINO would take bfloat16 by itself where the processor has it. What int8 leaves in
    floats is computed in bfloat16 where the processor has it.
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
        with self._lock:  # one request, whose tensors the next thread would overwrite
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
        """See :meth:`JoinableRunner.join`: OpenVINO runs the layers of a model one after the other, in one memory."""
        openvino = load_openvino()
        models = [runner.model.clone() for runner in runners]
        for runner in runners:  # they hold the weights once more
            runner.rest()
        given = models[0].get_parameters()[0]
        for model in models[1:]:
            for use in list(model.get_parameters()[0].output(0).get_target_inputs()):
                use.replace_source_output(given.output(0))
        outputs = [result.input_value(0) for model in models for result in model.get_results()]
        results = [openvino.opset13.result(output) for output in outputs]
        return cls(openvino.Model(results, [given]), runners[0].precision)


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
