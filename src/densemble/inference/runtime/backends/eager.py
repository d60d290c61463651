"""eager: PyTorch as it is, channels last; the reference for all others."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import Backend, Precision, Runner, as_list, native_bf16


def compile_eager(network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]) -> Runner:
    """A runner that calls the network, its weights laid out channels last."""
    laid_out = _channels_last(network)

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = as_list(laid_out(images.contiguous(memory_format=torch.channels_last)))
        return [output.float() for output in outputs]

    return run


def _channels_last(network: nn.Module) -> nn.Module:
    """The network with weights channels last: the same ones where they lie so already."""
    if all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in network.parameters() if weight.ndim == 4
    ):
        return network
    return copy.deepcopy(network).to(memory_format=torch.channels_last)


def _precisions(device: torch.device) -> tuple[Precision, ...]:
    return ("fp32", "bf16") if native_bf16(device) else ("fp32",)


EAGER = Backend(compile_eager, precisions=_precisions)
