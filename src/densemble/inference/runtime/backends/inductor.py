"""inductor: the compiler of PyTorch; with CUDA graphs on a GPU."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import Backend, Precision, Runner, cannot_compile, float_precisions
from densemble.inference.runtime.backends.eager import torch_runner
from densemble.input_files import is_regular

WARM_UPS = 3
"""Calls until a CUDA graph is replayed: compilation, recording, first replay."""


def compile_inductor(
    network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]
) -> Runner:
    """Compile a network; this takes from ten seconds to minutes on a CPU.

    Raises:
        UsageError: the network cannot be compiled.
    """
    # Freezing packs, folds and casts the weights once; on a GPU it would only hold them in memory twice.
    option = "triton.cudagraphs" if example.is_cuda else "freezing"
    compiled = torch.compile(_exported(network, example), fullgraph=True, dynamic=False, options={option: True})
    run = torch_runner(compiled, precision, copy_outputs=example.is_cuda)  # a CUDA graph reuses its memory
    try:
        for _ in range(WARM_UPS if example.is_cuda else 1):
            run(example)
    except Exception as error:  # the compiler, and the C++ compiler that it calls, raise errors of many types
        raise cannot_compile("inductor", error) from error
    return run


def _exported(network: nn.Module, example: Tensor) -> nn.Module:
    """The network as a graph with a separate ``forward``.

    The compiler keeps only eight versions of one function, and all members would share that of their class.
    """
    try:
        with torch.no_grad():
            return torch.export.export(network, (example.contiguous(memory_format=torch.channels_last),)).module()
    except Exception as error:
        raise cannot_compile("inductor", error) from error


def _missing(device: torch.device) -> str | None:
    if device.type == "cuda":
        return None if find_spec("triton") else "inductor needs Triton on a GPU: pip install triton"
    if device.type != "cpu":
        return f"inductor runs on the CPU and on CUDA, the ensemble is on {device.type}"
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if sys.platform != "win32" and shutil.which(compiler) is None:
        return f"inductor needs a C++ compiler, and '{compiler}' is not installed: install it, or set CXX"
    if not is_regular(Path(sysconfig.get_paths()["include"]) / "Python.h"):
        return "inductor needs the Python headers: install python3-dev"
    return None


INDUCTOR = Backend(compile_inductor, _missing, float_precisions, slow_to_compile=True)
