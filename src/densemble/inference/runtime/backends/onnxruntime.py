"""onnxruntime: runs the network as an ONNX model, on the CPU or on a CUDA GPU."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import Backend, Precision, Runner, as_list, cannot_compile
from densemble.inference.runtime.backends.libraries import load_onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FLOAT = 1  # ONNX's number for float32
_ERRORS_ONLY = 3


def compile_onnxruntime(
    network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]
) -> Runner:
    """Make a runner of the exported network, with the number of threads of PyTorch; only float32.

    Raises:
        UsageError: the network cannot be exported.
    """
    with torch.inference_mode():
        shapes = [tuple(output.shape) for output in as_list(network(example))]
    session = _session(network, example)
    return _runner(session, shapes)


def _session(network: nn.Module, example: Tensor) -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _ERRORS_ONLY
    # Spinning threads would take cores from the networks that run between two calls.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        with torch.no_grad():
            program = torch.onnx.export(network, (example,), dynamo=True, verbose=False)
        assert program is not None
        serialized = program.model_proto.SerializeToString()
        return onnxruntime.InferenceSession(serialized, options, providers=[PROVIDERS[example.device.type]])
    except Exception as error:  # the exporter and the session raise errors of many types
        raise cannot_compile("onnxruntime", error) from error


def _runner(session: Any, shapes: Sequence[tuple[int, ...]]) -> Runner:
    input_name = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> list[Tensor]:
        images = images.detach().contiguous()
        outputs = [torch.empty(shape, device=images.device) for shape in shapes]
        binding = session.io_binding()
        target = (images.device.type, images.device.index or 0, _FLOAT)
        binding.bind_input(input_name, *target, tuple(images.shape), images.data_ptr())
        for name, output in zip(names, outputs, strict=True):
            binding.bind_output(name, *target, tuple(output.shape), output.data_ptr())
        if images.is_cuda:  # the session runs on another stream
            torch.cuda.current_stream(images.device).synchronize()
        session.run_with_iobinding(binding)
        return outputs

    return run


def _missing(device: torch.device) -> str | None:
    if device.type not in PROVIDERS:
        return f"onnxruntime runs on the CPU and on CUDA, the ensemble is on {device.type}"
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed: pip install 'densemble[onnx]'"
    if PROVIDERS[device.type] not in load_onnxruntime().get_available_providers():
        return "the installed onnxruntime has no CUDA support: pip install onnxruntime-gpu"
    return None


ONNXRUNTIME = Backend(compile_onnxruntime, _missing, runs_network=False, slower_than=("openvino", "cudagraph"))
