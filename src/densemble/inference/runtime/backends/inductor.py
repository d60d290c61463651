"""inductor: PyTorch's compiler; on a GPU with CUDA graphs."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends.backend import Backend, Precision, Runner, as_list, native_bf16

WARM_UPS = 3
"""Calls until a CUDA graph is replayed: the compilation, the run that is recorded, the first replay."""


def compile_inductor(
    network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]
) -> Runner:
    """A runner of the compiled network; compilation takes from ten seconds to minutes on a CPU.

    Raises:
        UsageError: the network cannot be compiled.
    """
    # Frozen weights are packed, folded and turned to bfloat16 once; on a GPU they would only take memory twice.
    option = "triton.cudagraphs" if example.is_cuda else "freezing"
    compiled = torch.compile(_own_code(network, example), fullgraph=True, dynamic=False, options={option: True})

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = as_list(compiled(images.contiguous(memory_format=torch.channels_last)))
        # The next replay of a CUDA graph writes into the same memory.
        return [output.to(torch.float32, copy=images.is_cuda) for output in outputs]

    try:
        for _ in range(WARM_UPS if example.is_cuda else 1):
            run(example)
    except Exception as error:  # the compiler, and the one that it calls, raise errors of their own
        raise _refusal(error) from error
    return run


def _own_code(network: nn.Module, example: Tensor) -> nn.Module:
    """The network as a graph with a ``forward`` of its own: the compiler keeps but eight versions of one function,
    and all members would share the function of their class."""
    try:
        with torch.no_grad():
            laid_out = example.contiguous(memory_format=torch.channels_last)
            return torch.export.export(network, (laid_out,)).module()
    except Exception as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> UsageError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UsageError(
        f"inductor cannot take this network: {lines[0] if lines else type(error).__name__}; use another backend"
    )


def _missing(device: torch.device) -> str | None:
    if device.type == "cuda":
        return None if find_spec("triton") else "inductor needs Triton on a GPU: pip install triton"
    if device.type != "cpu":
        return f"inductor runs on the CPU and on CUDA, the ensemble is on {device.type}"
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if sys.platform != "win32" and shutil.which(compiler) is None:
        return f"inductor needs a C++ compiler, '{compiler}' is not there: install one, or set CXX to yours"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "inductor needs the headers of Python: install python3-dev"
    return None


def _precisions(device: torch.device) -> tuple[Precision, ...]:
    return ("fp32", "bf16") if native_bf16(device) else ("fp32",)


INDUCTOR = Backend(compile_inductor, _missing, _precisions, slow_to_compile=True)
