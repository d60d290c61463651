"""eager: plain PyTorch, channels last; the reference for all other backends."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import Backend, Precision, Runner, as_list, float_precisions


def compile_eager(network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]) -> Runner:
    """Make a runner that calls the network with channels-last weights."""
    channels_last = _channels_last(network)

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = as_list(channels_last(images.contiguous(memory_format=torch.channels_last)))
        return [output.float() for output in outputs]

    return run


def _channels_last(network: nn.Module) -> nn.Module:
    """The network itself if its weights are channels last already, else a copy."""
    if all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in network.parameters() if weight.ndim == 4
    ):
        return network
    return copy.deepcopy(network).to(memory_format=torch.channels_last)


EAGER = Backend(compile_eager, precisions=float_precisions)
