"""Measure the growth of time and memory with members and pixels, and the share of time in densemble's code.

- Time of 1, 3, 7 and 14 members and of four image sizes, interleaved, with a linear fit to the medians.
- Peak memory of new processes that load 1, 3, 7 and 14 members and predict, with and without the weights.
- Share of the prediction time outside the networks, and a profile.

Members are copies of one network with different weights. Writes benchmarks/results/scaling.json and
docs/reference/speed.md.

    python benchmarks/bench_scaling.py [--backbone resnet18] [--rounds 9] [--threads 2] [--quick]
"""

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from speed_page import write_page
from torch import Tensor, nn

import densemble as de
from densemble.evaluation.benchmark.benchmark_images import synthetic_images
from densemble.evaluation.benchmark.fresh_process import Request
from densemble.evaluation.benchmark.interleave import Method, interleaved, timed
from densemble.evaluation.benchmark.machine import machine
from densemble.evaluation.benchmark.measure_ensemble import NAIVE, REMEMBERED, measure_processes, temporary_cache
from densemble.inference.runtime.fast_ensemble import FastMember, accelerate
from densemble.messages import shown
from densemble.shapes import Size

RESULT = Path(__file__).parent / "results" / "scaling.json"
COUNTS = (1, 3, 7, 14)
SIZES: tuple[Size, ...] = ((96, 128), (192, 256), (288, 384), (384, 512))
SIZE: Size = (192, 256)
KINDS = {"ours, eager fp32": ("eager", "fp32"), "ours, auto fp32": ("auto", "fp32")}
PROFILED = 20
"""Number of predictions in a profile."""


def say(line: str) -> None:
    print(line, flush=True)


def make_ensemble(backbone: str, count: int) -> de.Ensemble:
    """Members of one architecture with different random weights and maps of the size of the image."""
    members = {}
    for seed in range(count):
        torch.manual_seed(seed)
        members[f"member-{seed}"] = de.DenseModel(backbone, weights=None, out_size=None)
    return de.Ensemble(members).eval()


def r_squared(x: Sequence[float], y: Sequence[float]) -> float:
    """R² of the best linear fit."""
    slope, start = np.polyfit(x, y, 1)
    left = np.asarray(y) - (slope * np.asarray(x) + start)
    return float(1 - np.sum(left**2) / np.sum((np.asarray(y) - np.mean(y)) ** 2))


def by_members(backbone: str, counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Seconds by number of members."""
    whole, images = make_ensemble(backbone, max(counts)), synthetic_images(1, 3, SIZE)
    ways: dict[tuple[str, int], Method] = {}
    own = list(whole.named_members())
    for name, (backend, precision) in KINDS.items():
        for count in counts:
            some = whole.with_members(dict(own[:count])).eval()
            ways[name, count] = accelerate(some, images, backend, precision)
    return grown(interleaved(ways, images, rounds), counts)


def by_pixels(backbone: str, sizes: Sequence[Size], rounds: int) -> dict[str, Any]:
    """Seconds by number of pixels."""
    ensemble = make_ensemble(backbone, 2)
    by_area = {height * width: synthetic_images(1, 3, (height, width)) for height, width in sizes}
    ways: dict[tuple[str, int], Method] = {}
    for name, (backend, precision) in KINDS.items():
        for pixels, images in by_area.items():
            ways[name, pixels] = on(accelerate(ensemble, images, backend, precision), images)
    return grown(interleaved(ways, torch.empty(0), rounds), list(by_area))


def on(way: Method, images: Tensor) -> Method:
    """A variant that always gets the same images, as a new tensor each time."""
    return lambda _: way(images.clone())


def grown(samples: dict[tuple[str, int], list[float]], points: Sequence[int]) -> dict[str, Any]:
    """Medians and the linear fit, by variant."""
    rows = {}
    for name in KINDS:
        medians = [statistics.median(samples[name, point]) for point in points]
        rows[name] = {
            "median_seconds": dict(zip(points, medians, strict=True)),
            "r_squared": r_squared(points, medians),
            "samples": {point: samples[name, point] for point in points},
        }
        say(f"{name:18} {', '.join(f'{1000 * one:.1f} ms' for one in medians)}; R2 {rows[name]['r_squared']:.4f}")
    return {"points": list(points), "ways": rows}


def memory(backbone: str, counts: Sequence[int], threads: int) -> dict[str, Any]:
    """Peak memory of new processes, and its largest growth over the first count without the weights."""
    images, weights = synthetic_images(1, 3, SIZE), {}
    peaks: dict[str, dict[int, float]] = {NAIVE: {}, REMEMBERED: {}}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            path = Path(folder) / f"{count}.safetensors"
            de.save(make_ensemble(backbone, count), path)
            weights[count] = path.stat().st_size / 1024**2
            with temporary_cache():
                found = measure_processes(Request(str(path), "", "auto", "fp32", "cpu", threads), images)
            for name, row in peaks.items():
                peak = found[name].peak_mib
                assert peak is not None, "this system does not tell the peak of a process"
                row[count] = peak
    ways = {}
    for name, row in peaks.items():
        beyond = {count: peak - weights[count] for count, peak in row.items()}
        growth = max(beyond.values()) / beyond[counts[0]] - 1
        ways[name] = {"peak_mib": row, "beyond_weights_mib": beyond, "growth": growth}
        say(f"{name:24} {', '.join(f'{peak:.0f}' for peak in row.values())} MiB, {growth:+.1%} beyond the weights")
    return {"points": list(counts), "weights_mib": weights, "ways": ways}


class Inside:
    """Seconds spent in networks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def run(*given: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*given)
            finally:
                self.seconds += time.perf_counter() - started

        return run


def watched(fast: de.Ensemble) -> Inside:
    """Time every network: its runner if it was compiled, else its backbone and head."""
    inside = Inside()
    for _, member in fast.named_members():
        assert isinstance(member, FastMember)
        network = member.network
        for row in network.tuned.values():
            row[:] = [replace(one, runner=inside.watch(one.runner)) for one in row]
        if not network.tuned:
            network._eagerly = inside.watch(network._eagerly)  # type: ignore[method-assign]
    return inside


def overhead(backbone: str, rounds: int) -> dict[str, Any]:
    """Share of the time outside the networks, by variant, with a profile."""
    images, found = synthetic_images(1, 3, SIZE), {}
    for name, (backend, precision) in KINDS.items():
        fast = accelerate(make_ensemble(backbone, 7), images, backend, precision)
        inside = watched(fast)
        timed(fast, images)
        shares = []
        for _ in range(rounds):
            inside.seconds = 0.0
            whole, _ = timed(fast, images)
            shares.append(1 - inside.seconds / whole)
        share = statistics.median(shares)
        found[name] = {"share": share, "samples": shares, "profile": profile(fast, images)}
        say(f"{name:18} {share:.2%} of the time outside the networks")
    return found


def profile(fast: nn.Module, images: Tensor) -> list[dict[str, Any]]:
    """Functions by their share of the profiled time. The profiler slows Python code down."""
    profiler = cProfile.Profile()
    with torch.inference_mode():
        copies = [images.clone() for _ in range(PROFILED)]
        profiler.enable()
        for own in copies:
            fast(own)
        profiler.disable()
    stats = pstats.Stats(profiler)
    rows = [
        {"function": f"{Path(file).name}:{line} {function}", "calls": calls, "share": own_time / stats.total_tt}  # type: ignore[attr-defined]
        for (file, line, function), (_, calls, own_time, _, _) in stats.stats.items()  # type: ignore[attr-defined]
    ]
    return sorted(rows, key=lambda row: -row["share"])[:15]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="few members and rounds: to see that all works")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds, backbone = (2 if arguments.quick else arguments.rounds), arguments.backbone
    counts, sizes = (COUNTS[:2], SIZES[:2]) if arguments.quick else (COUNTS, SIZES)
    with temporary_cache(), shown(say):
        result = {
            **environment("openvino", "onnxruntime"),
            "measured_on": machine(torch.device("cpu")),
            "backbone": backbone,
            "rounds": rounds,
            "members": by_members(backbone, counts, rounds),
            "pixels": by_pixels(backbone, sizes, rounds),
            "memory": memory(backbone, counts, arguments.threads),
            "overhead": overhead(backbone, 3 * rounds),
        }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.out == RESULT:
        write_page()
    say(f"raw samples in {arguments.out}")


if __name__ == "__main__":
    main()
