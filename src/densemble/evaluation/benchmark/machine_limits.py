"""What this machine can do at most, measured now: convolutions, matrix products and copies."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.evaluation.benchmark.interleave import synchronize
from densemble.inference.runtime.backends.backend import Precision, native_bf16
from densemble.shapes import Size

CONVOLUTIONS: tuple[tuple[int, Size], ...] = ((64, (180, 240)), (128, (90, 120)), (256, (45, 60)))
"""Channels and size of 3x3 convolutions that are equally much work, as networks have them in a row."""
MATRIX = 1024
COPIED_BYTES = 1 << 28
"""Far more than caches hold."""
PARTS = 5
SECONDS = 0.04
"""Of one part; a limit is the median of the parts."""
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "int8": 1}
"""Of one value."""


@dataclass(frozen=True)
class MachineLimits:
    """The best that was sustained, at PyTorch's current number of threads.

    Attributes:
        convolution: FLOP/s by precision, of the best 3x3 convolution and memory layout.
        matmul: FLOP/s by precision, of a square matrix product.
        bandwidth: bytes/s of a copy, read and written bytes counted.
        samples: rates of all parts, by what was run.
    """

    convolution: dict[Precision, float]
    matmul: dict[Precision, float]
    bandwidth: float
    samples: dict[str, list[float]]

    def seconds(self, flops: float, precision: Precision) -> float | None:
        """The shortest time for so much work; ``None`` for a precision that was not measured."""
        return flops / self.convolution[precision] if precision in self.convolution else None

    def __or__(self, later: "MachineLimits") -> "MachineLimits":
        """The higher of two measurements each: something else may have slowed one of them."""
        return MachineLimits(
            {one: max(rate, later.convolution[one]) for one, rate in self.convolution.items()},
            {one: max(rate, later.matmul[one]) for one, rate in self.matmul.items()},
            max(self.bandwidth, later.bandwidth),
            {name: values + later.samples[name] for name, values in self.samples.items()},
        )


@torch.inference_mode()
def measure_limits(device: torch.device, part_seconds: float = SECONDS) -> MachineLimits:
    """The limits of a device in float32, and in bfloat16 where its hardware has that.

    Args:
        device: of the tensors.
        part_seconds: of each of the ``PARTS`` parts, of each of the things that are run.
    """
    precisions: list[Precision] = ["fp32", "bf16"] if native_bf16(device) else ["fp32"]
    samples: dict[str, list[float]] = {}
    convolution: dict[Precision, float] = {}
    matmul: dict[Precision, float] = {}
    for precision in precisions:
        own = _convolutions(precision, device, part_seconds)
        convolution[precision] = max(map(statistics.median, own.values()))
        a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=DTYPES[precision]) for _ in range(2))
        rates = _rates(lambda a=a, b=b: a @ b, 2 * MATRIX**3, device, part_seconds)  # type: ignore[misc]
        matmul[precision] = statistics.median(rates)
        samples |= own | {f"matrix product, {precision}": rates}
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copies = _rates(lambda: target.copy_(source), 2 * COPIED_BYTES, device, part_seconds)
    return MachineLimits(convolution, matmul, statistics.median(copies), samples | {"copy": copies})


def _convolutions(precision: Precision, device: torch.device, part_seconds: float) -> dict[str, list[float]]:
    """FLOP/s of every convolution in both memory layouts."""
    batch = 1 if device.type == "cpu" else 32
    found = {}
    for channels, (height, width) in CONVOLUTIONS:
        images = torch.randn(batch, channels, height, width, device=device, dtype=DTYPES[precision])
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=DTYPES[precision])
        flops = 2 * 9 * channels**2 * batch * height * width
        for layout in (torch.contiguous_format, torch.channels_last):
            x, w = images.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
            words = "channels last" if layout == torch.channels_last else "channels first"
            name = f"convolution of {channels} channels, {height}x{width}, {words}, {precision}"
            run: Callable[[], Tensor] = lambda x=x, w=w: F.conv2d(x, w, padding=1)  # type: ignore[misc]  # noqa: E731
            found[name] = _rates(run, flops, device, part_seconds)
    return found


def _rates(run: Callable[[], Tensor], work: int, device: torch.device, part_seconds: float) -> list[float]:
    """Work per second of ``PARTS`` parts, each a row of calls without a pause."""
    run()
    synchronize(device)
    rates = []
    for _ in range(PARTS):
        started, calls, taken = time.perf_counter(), 0, 0.0
        while taken < part_seconds:
            run()
            synchronize(device)
            calls += 1
            taken = time.perf_counter() - started
        rates.append(calls * work / taken)
    return rates
