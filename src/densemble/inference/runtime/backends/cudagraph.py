"""cudagraph: plain PyTorch on a GPU, recorded as a CUDA graph; ready in about a second for each network."""

import copy
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import Backend, Precision, Runner, cannot_compile, float_precisions
from densemble.inference.runtime.backends.eager import compile_eager
from densemble.inference.runtime.recording import Recording

_BF16: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
"""Copies of networks with bfloat16 weights, which the recordings of all shapes share."""


def compile_cudagraph(
    network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]
) -> Runner:
    """Record a network for the shape of the example.

    Raises:
        UsageError: the network waits for the device, so that it cannot be recorded.
    """
    plain = compile_eager(bf16_weights(network) if precision == "bf16" else network, example, precision, calibration)
    try:
        recording = Recording(plain, example)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise cannot_compile("cudagraph", error) from error

    def run(images: Tensor) -> list[Tensor]:
        return [logits.clone() for logits in recording(images)]

    return run


def bf16_weights(network: nn.Module) -> nn.Module:
    """Return a copy with convolutions and linear layers in bfloat16, so that autocast does not convert them every time.

    Normalization layers stay in float32, as autocast computes them.
    """
    if network not in _BF16:
        converted = copy.deepcopy(network)
        for part in converted.modules():
            if isinstance(part, nn.modules.conv._ConvNd | nn.Linear):
                part.to(torch.bfloat16)
        _BF16[network] = converted
    return _BF16[network]


def _missing(device: torch.device) -> str | None:
    return None if device.type == "cuda" else f"CUDA graphs need an NVIDIA GPU, the ensemble is on {device.type}"


CUDAGRAPH = Backend(compile_cudagraph, _missing, float_precisions, recordable=True)
