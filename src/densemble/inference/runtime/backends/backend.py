"""Backend: the interface of a runtime that executes a network at one fixed shape."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from densemble.errors import UsageError

Precision = Literal["fp32", "bf16", "int8"]

Runner = Callable[[Tensor], list[Tensor]]
"""Normalized images of the fixed shape, float32 contiguous ``(B, C, H, W)`` -> float32 logits, one tensor per output.

A later call does not change the returned tensors.
"""

Compile = Callable[[nn.Module, Tensor, Precision, Sequence[Tensor]], Runner]
"""(network, example of the fixed shape, precision, calibration batches of that shape) -> runner.

The network takes normalized images and returns a tensor or a tuple of them; it is not changed. Only int8 uses the
calibration batches.
"""


class JoinableRunner(ABC):
    """A runner that can be joined with others of the same class, shape and precision into one."""

    @abstractmethod
    def __call__(self, images: Tensor) -> list[Tensor]:
        """See :data:`Runner`."""

    @abstractmethod
    def rest(self) -> None:
        """Release the working memory; the next run is slow because it allocates it again."""

    @classmethod
    @abstractmethod
    def join(cls, runners: Sequence[Any]) -> Self:
        """Return a runner of all outputs, in order, with the working memory of one; it replaces the given runners."""


@dataclass(frozen=True)
class Backend:
    """A runtime that executes networks.

    Attributes:
        compile: see :data:`Compile`; raises ``UsageError`` for a network that it cannot compile.
        missing: why the backend cannot be used on this device, with the remedy; ``None``: it can be used.
        precisions: precisions that the hardware supports, the exact one first.
        runs_network: the runner calls the network itself, whose weights have to stay in memory.
        joinable: the runners are :class:`JoinableRunner`, and making one takes little time before its first run.
        recordable: the runner can be a part of a recording, see :class:`.recording.Recording`.
        slow_to_compile: compilation takes minutes; the backend is tried only if it is named.
        slower_than: backends that are faster: if one of them can be used, this one is tried only if it is named.
    """

    compile: Compile
    missing: Callable[[torch.device], str | None] = lambda device: None
    precisions: Callable[[torch.device], tuple[Precision, ...]] = lambda device: ("fp32",)
    runs_network: bool = True
    joinable: bool = False
    recordable: bool = False
    slow_to_compile: bool = False
    slower_than: tuple[str, ...] = ()


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16; emulation is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def float_precisions(device: torch.device) -> tuple[Precision, ...]:
    """float32, and bfloat16 if the hardware supports it."""
    return ("fp32", "bf16") if native_bf16(device) else ("fp32",)


def cannot_compile(backend: str, error: Exception, line: int = 0) -> UsageError:
    """The error for a network that a backend cannot compile, with one line of the library's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[line] if lines else type(error).__name__
    return UsageError(f"{backend} cannot compile this network: {reason}; use another backend")


def as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a network as a list."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
