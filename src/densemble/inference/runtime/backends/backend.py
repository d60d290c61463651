"""What a backend is: one way to run a network at one fixed shape."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "int8"]

Runner = Callable[[Tensor], list[Tensor]]
"""Normalized images of the one shape, float32 contiguous ``(B, C, H, W)`` -> float32 logits, one tensor per output.

They are the caller's: a later call does not change them.
"""

Compile = Callable[[nn.Module, Tensor, Precision, Sequence[Tensor]], Runner]
"""(network, example of the fixed shape, precision, calibration batches of that shape) -> runner.

The network takes normalized images and returns a tensor or a tuple of them; it is left as it is. Only int8 looks at the
calibration batches.
"""


class JoinableRunner(ABC):
    """A runner that can be made one with others of its kind, shape and precision."""

    @abstractmethod
    def __call__(self, images: Tensor) -> list[Tensor]:
        """See :data:`Runner`."""

    @abstractmethod
    def rest(self) -> None:
        """Gives back the memory that it needs, until it runs again: that is then slow."""

    @classmethod
    @abstractmethod
    def join(cls, runners: Sequence[Any]) -> Self:
        """One that gives the outputs of all, in their order, and computes in the memory of one; they are used up."""


@dataclass(frozen=True)
class Backend:
    """One way to run a network.

    Attributes:
        missing: why it cannot be used here, on this device, with the remedy; ``None``: it can.
        precisions: those that the hardware computes in, the exact one first.
        compile: see :data:`Compile`; raises ``UsageError`` for a network that it cannot take.
        runs_network: its runner calls the very network, whose weights have to stay in memory.
        joinable: its runners are :class:`JoinableRunner`, and making one takes little time before it first runs.
        slow_to_compile: compiles for minutes on a CPU, and is tried there only where it is named.
        slower_than: backends that are faster on a CPU: where one of them can be used, this one is tried only where it
            is named.
    """

    compile: Compile
    missing: Callable[[torch.device], str | None] = lambda device: None
    precisions: Callable[[torch.device], tuple[Precision, ...]] = lambda device: ("fp32",)
    runs_network: bool = True
    joinable: bool = False
    slow_to_compile: bool = False
    slower_than: tuple[str, ...] = ()


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16 by itself: slower than float32 where it does not."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """A network's outputs in a row."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
