"""Multiply-accumulates of a network, counted while it runs on probe images."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from densemble.shapes import Size

BATCH = 2  # windows of attention are folded into the batch axis: a tensor that still has two images is a map


def probe(size: Size, device: str, channels: int = 3) -> Tensor:
    """Two black images ``(2, C, H, W)``."""
    return torch.zeros(BATCH, channels, *size, device=device)


def count_macs(model: nn.Module, size: Size, device: str, channels: int = 3) -> int:
    """Multiply-accumulates of a model for one image of a size; what the counter does not know counts as none."""
    with counting(model) as counter:
        model(probe(size, device, channels))
    return int(counter.get_total_flops()) // (2 * BATCH)


@contextlib.contextmanager
def counting(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Counts the work done inside; the counter stumbles over a parameter that is handed to a module as its input."""
    learned = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in learned:
            p.requires_grad_(False)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        for p in learned:
            p.requires_grad_(True)
