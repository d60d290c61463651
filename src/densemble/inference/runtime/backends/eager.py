"""eager: plain PyTorch, channels last; the reference for all other backends."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import Backend, Precision, Runner, as_list, float_precisions


def compile_eager(network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]) -> Runner:
    """Make a runner that calls the network with channels-last weights."""
    return torch_runner(_channels_last(network), precision)


def torch_runner(network: Callable[[Tensor], Any], precision: Precision, copy_outputs: bool = False) -> Runner:
    """A runner that calls a PyTorch network with channels-last images.

    Args:
        network: returns a tensor or a tuple of them.
        precision: ``bf16`` runs under autocast.
        copy_outputs: the next call overwrites the memory of the network's outputs.
    """

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = as_list(network(images.contiguous(memory_format=torch.channels_last)))
        return [output.to(torch.float32, copy=copy_outputs) for output in outputs]

    return run


def _channels_last(network: nn.Module) -> nn.Module:
    """The network itself if its weights are channels last already, else a copy."""
    if all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in network.parameters() if weight.ndim == 4
    ):
        return network
    return copy.deepcopy(network).to(memory_format=torch.channels_last)


EAGER = Backend(compile_eager, precisions=float_precisions, recordable=True)
