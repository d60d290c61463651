"""Count the multiply-accumulates of a network while it runs on probe images."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from densemble.shapes import Size

BATCH = 2  # window attention merges windows into the batch axis: a tensor with batch size 2 is still per image


def probe(size: Size, device: str, channels: int = 3) -> Tensor:
    """Two black images ``(2, C, H, W)``."""
    return torch.zeros(BATCH, channels, *size, device=device)


def count_macs(model: nn.Module, size: Size, device: str, channels: int = 3) -> int:
    """Multiply-accumulates of a model per image of ``size``; operations unknown to the counter count as zero."""
    with counting(model) as counter:
        model(probe(size, device, channels))
    return int(counter.get_total_flops()) // (2 * BATCH)


@contextlib.contextmanager
def counting(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Count the operations inside the context. Parameters are frozen: the counter fails if one is a module's input."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in trainable:
            p.requires_grad_(False)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        for p in trainable:
            p.requires_grad_(True)
