"""Peak rates of this machine, measured with convolutions, matrix products and copies."""

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
"""Channels and size of 3x3 convolutions with equal FLOPs, as in consecutive stages of a network."""
MATRIX = 1024
COPIED_BYTES = 1 << 28
"""Much larger than the caches of processors."""
PARTS = 5
SECONDS = 0.04
"""Seconds of one part; a limit is the median rate of the parts."""
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "int8": 1}
"""Bytes per value."""


@dataclass(frozen=True)
class MachineLimits:
    """Sustained peak rates with the current number of PyTorch threads.

    Attributes:
        convolution: FLOP/s by precision, for the fastest 3x3 convolution and memory layout.
        matmul: FLOP/s by precision, for a square matrix product.
        bandwidth: bytes/s of a copy; read and written bytes both count.
        samples: rates of all parts, by name of the operation.
    """

    convolution: dict[Precision, float]
    matmul: dict[Precision, float]
    bandwidth: float
    samples: dict[str, list[float]]

    def seconds(self, flops: float, precision: Precision) -> float | None:
        """Return the shortest time for ``flops`` operations; ``None`` for a precision that was not measured."""
        return flops / self.convolution[precision] if precision in self.convolution else None

    def __or__(self, later: "MachineLimits") -> "MachineLimits":
        """Return the higher of two measurements for each rate: other load may have slowed one of them."""
        return MachineLimits(
            {precision: max(rate, later.convolution[precision]) for precision, rate in self.convolution.items()},
            {precision: max(rate, later.matmul[precision]) for precision, rate in self.matmul.items()},
            max(self.bandwidth, later.bandwidth),
            {name: values + later.samples[name] for name, values in self.samples.items()},
        )


@torch.inference_mode()
def measure_limits(device: torch.device, part_seconds: float = SECONDS) -> MachineLimits:
    """Measure the limits of a device in float32, and in bfloat16 if the hardware supports it.

    Args:
        device: device to measure.
        part_seconds: seconds of each of the ``PARTS`` parts of each operation.
    """
    precisions: list[Precision] = ["fp32", "bf16"] if native_bf16(device) else ["fp32"]
    samples: dict[str, list[float]] = {}
    convolution: dict[Precision, float] = {}
    matmul: dict[Precision, float] = {}
    for precision in precisions:
        convolution_rates = _convolutions(precision, device, part_seconds)
        convolution[precision] = max(map(statistics.median, convolution_rates.values()))
        a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=DTYPES[precision]) for _ in range(2))
        rates = _rates(lambda a=a, b=b: a @ b, 2 * MATRIX**3, device, part_seconds)  # type: ignore[misc]
        matmul[precision] = statistics.median(rates)
        samples |= convolution_rates | {f"matrix product, {precision}": rates}
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copies = _rates(lambda: target.copy_(source), 2 * COPIED_BYTES, device, part_seconds)
    return MachineLimits(convolution, matmul, statistics.median(copies), samples | {"copy": copies})


def _convolutions(precision: Precision, device: torch.device, part_seconds: float) -> dict[str, list[float]]:
    """Measure the FLOP/s of every convolution in both memory layouts."""
    batch = 1 if device.type == "cpu" else 32
    rates = {}
    for channels, (height, width) in CONVOLUTIONS:
        images = torch.randn(batch, channels, height, width, device=device, dtype=DTYPES[precision])
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=DTYPES[precision])
        flops = 2 * 9 * channels**2 * batch * height * width
        for layout in (torch.contiguous_format, torch.channels_last):
            x, w = images.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
            layout_name = "channels last" if layout == torch.channels_last else "channels first"
            name = f"convolution of {channels} channels, {height}x{width}, {layout_name}, {precision}"
            run: Callable[[], Tensor] = lambda x=x, w=w: F.conv2d(x, w, padding=1)  # type: ignore[misc]  # noqa: E731
            rates[name] = _rates(run, flops, device, part_seconds)
    return rates


def _rates(run: Callable[[], Tensor], work: int, device: torch.device, part_seconds: float) -> list[float]:
    """Measure the work per second of ``PARTS`` parts; each part is a series of calls without a pause."""
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
