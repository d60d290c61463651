"""Compare the seven members before and after rewriting for inference: operations, time, equality of maps.

"plain" is the reference. "folded" folds batch normalization into the convolutions. "fewer operations" also runs
convolutions that follow a resize before it wherever that saves operations (docs/decisions/0004). All variants run
interleaved in one process. Writes benchmarks/results/rewrite.json with the raw samples.

    python benchmarks/bench_rewrite.py [--size 192x256] [--batch 2] [--rounds 9] [--heads skip,upsample]
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from environment import environment
from torch import nn

import densemble as de
from densemble.config import SEVEN
from densemble.nets.counting import count_macs
from densemble.nets.heads.layers import ResizeConvolution
from densemble.nets.rewrite import for_inference
from densemble.shapes import Size, parse_size

RESULT = Path(__file__).parent / "results" / "rewrite.json"
OUT_SIZE = (48, 64)


class ConvolutionBeforeResize(ResizeConvolution):
    """Resizing and a 3x3 convolution, computed the other way round where that takes fewer multiply-accumulates.

    A 3x3 convolution is nine 1x1 convolutions whose results are shifted and added, and a 1x1 convolution commutes with
    resizing: the nine run on the small map. Resizing, shifting and adding are linear along each axis: one small matrix
    for the three shifts of the rows, one for those of the columns.
    """

    def forward(self, x: torch.Tensor, size: Size, beside: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        """See :meth:`ResizeConvolution.forward`."""
        if not self.saves(x.shape, size):
            return super().forward(x, size, beside)
        resized, rest = torch.split(self.weight, [x.shape[1], self.in_channels - x.shape[1]], 1)
        taps = resized.permute(0, 3, 2, 1).reshape(-1, x.shape[1], 1, 1)  # out channels x columns x rows
        (batch, _, height, width), channels = x.shape, self.out_channels
        parts = F.conv2d(x, taps).contiguous().view(batch, channels, 3, 3 * height, width)
        parts = torch.matmul(resize_and_shift(height, size[0], x), parts)
        parts = parts.transpose(2, 3).reshape(batch, channels, size[0], 3 * width)
        total = torch.matmul(parts, resize_and_shift(width, size[1], x).T)
        if beside is not None:
            return total + F.conv2d(beside, rest, self.bias, padding=1)
        return total if self.bias is None else total + self.bias.view(1, -1, 1, 1)

    def saves(self, shape: Sequence[int], size: Size) -> bool:
        """Whether the nine 1x1 convolutions and the two matrices take fewer multiply-accumulates at these sizes."""
        (_, channels, height, width), (rows, columns) = shape, size
        plain = rows * columns * 9 * channels
        small = height * width * 9 * channels + 9 * rows * height * width + 3 * rows * width * columns
        return (height, width) != size and small < plain


def resize_and_shift(length: int, resized: int, like: torch.Tensor) -> torch.Tensor:
    """``(resized, 3 * length)``: bilinear resizing of one axis, read one pixel before, at, and one after; 0 outside."""
    unit = torch.eye(length, dtype=torch.promote_types(like.dtype, torch.float32))[None]
    matrix = F.interpolate(unit, size=resized, mode="linear", align_corners=False)[0].T
    shifted = [F.pad(matrix[:-1], (0, 0, 1, 0)), matrix, F.pad(matrix[1:], (0, 0, 0, 1))]
    return torch.cat(shifted, 1).to(like.dtype)


def with_fewer_operations(model: de.DenseModel) -> de.DenseModel:
    """The folded model with :class:`ConvolutionBeforeResize`."""
    folded = for_inference(model)
    for parent in list(folded.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResizeConvolution):
                reordered = ConvolutionBeforeResize(child.in_channels, child.out_channels)
                reordered.weight, reordered.bias = child.weight, child.bias
                setattr(parent, name, reordered)
    return folded


def seconds(model: nn.Module, x: torch.Tensor) -> float:
    started = time.perf_counter()
    model(x)
    return time.perf_counter() - started


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.inference_mode()
def measure(name: str, head: str, size: Size, batch: int, rounds: int) -> dict[str, Any]:
    """One member: operations, medians and differences of each variant."""
    plain = de.DenseModel(name, weights=None, out_size=OUT_SIZE, input_size=size, head=head).eval()
    ways = {
        "plain": plain,
        "folded": for_inference(plain),
        "fewer operations": with_fewer_operations(plain),
    }
    x = torch.rand(batch, 3, *size)
    for way in ways.values():
        way.to(memory_format=torch.channels_last)
    wanted = plain(x)
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for round_number in range(rounds + 1):
        for way, model in ways.items():
            taken = seconds(model, x)
            if round_number:  # the first round is a warm-up
                samples[way].append(taken)
    medians = {way: statistics.median(values) for way, values in samples.items()}
    exact = copy.deepcopy(plain).double()
    reference = exact(x.double())
    return {
        "member": name,
        "head": head,
        "cut": plain.cut.node,
        "backbone_macs": plain.cut.macs,
        "macs": {way: count_macs(model, size, "cpu") for way, model in ways.items()},
        "median_seconds": medians,
        "speed": {way: medians["plain"] / value for way, value in medians.items()},
        "relative_error": {way: relative_error(model(x), wanted) for way, model in ways.items()},
        "relative_error_float64": {
            "folded": relative_error(for_inference(exact)(x.double()), reference),
            "fewer operations": relative_error(with_fewer_operations(exact)(x.double()), reference),
        },
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=(192, 256), help="input height x width")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--heads", type=lambda text: text.split(","), default=["skip", "upsample"])
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    rows = []
    for head in arguments.heads:
        for name in SEVEN:
            row = measure(name, head, arguments.size, arguments.batch, arguments.rounds)
            rows.append(row)
            work = ", ".join(f"{way} {value / 1e6:.0f}" for way, value in row["macs"].items())
            speed = ", ".join(f"{way} x{value:.2f}" for way, value in row["speed"].items())
            print(f"{head:9} {name:14} MMACs {work}; speed {speed}", flush=True)
    totals = {
        head: {
            way: {
                "macs": sum(row["macs"][way] for row in rows if row["head"] == head),
                "seconds": sum(row["median_seconds"][way] for row in rows if row["head"] == head),
            }
            for way in rows[0]["macs"]
        }
        for head in arguments.heads
    }
    result = {
        **environment(),
        "size": list(arguments.size),
        "out_size": list(OUT_SIZE),
        "batch": arguments.batch,
        "totals": totals,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for head, ways in totals.items():
        for way, total in ways.items():
            ratio = ways["plain"]["seconds"] / total["seconds"]
            print(
                f"{head:9} all seven, {way:17} {total['macs'] / 1e9:6.2f} GMACs {total['seconds']:.3f} s, x{ratio:.2f}"
            )
    print(f"raw samples in {RESULT}")


if __name__ == "__main__":
    main()
