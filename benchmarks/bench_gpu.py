"""Measure inference and training on a GPU, with ratios within one run; on a CPU only with ``--smoke``.

Every section prints its result as soon as it has it, and the sections run in order of their cost:

- batches: seven default members at 192x256 -> 48x64 in batches of 1, 8 and 32: the naive loop (eager, float32), the
  same loop with autocast and channels_last, and densemble with one CUDA graph in float32 and bfloat16; the limit is
  the work of all members divided by the rate of a large bfloat16 convolution, measured in the same run.
- memory: peak GPU memory of a prediction by 1, 3, 7 and 14 members, and the bytes of their weights.
- start: seconds from the start of a process to its first map, for the naive loop and densemble.
- folder: wall time of predicting JPEG files of 640x480, against the networks alone, and against one decoding thread,
  batches of eight and no CUDA graph.

Writes benchmarks/results/gpu.json with the raw samples. Without a GPU, it says so and ends with exit code 0; with
``--smoke``, it runs every section on tiny inputs on the CPU, to check that they work, and writes nothing.

    python benchmarks/bench_gpu.py [--smoke] [--sections batches memory start folder] [--images 2000]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_folder import make_images
from environment import environment
from torch import Tensor

import densemble as de
from densemble.config import SEVEN
from densemble.ensemble.placement import weight_bytes
from densemble.evaluation.benchmark.benchmark_images import synthetic_images
from densemble.evaluation.benchmark.execution_modes import naive_loop
from densemble.evaluation.benchmark.flops import count_work
from densemble.evaluation.benchmark.fresh_process import Request
from densemble.evaluation.benchmark.interleave import Method, interleaved, times_as_fast
from densemble.evaluation.benchmark.machine import machine
from densemble.evaluation.benchmark.machine_limits import measure_limits
from densemble.evaluation.benchmark.measure_ensemble import measure_processes, temporary_cache
from densemble.evaluation.benchmark.plain_values import process_values
from densemble.inference.compute import batch_predictor
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.pipeline import Seconds
from densemble.inference.files.predict_files import predict_files
from densemble.inference.predict import prepared
from densemble.inference.sources import make_items
from densemble.messages import shown
from densemble.nets.rewrite import for_inference

RESULT = Path(__file__).parent / "results" / "gpu.json"
SECTIONS = ("batches", "memory", "start", "folder")
SIZE, OUT = (192, 256), (48, 64)
Show = Callable[[str, Any], None]


def members(count: int, names: tuple[str, ...] = SEVEN) -> de.Ensemble:
    """An ensemble of ``count`` members with random weights."""
    torch.manual_seed(0)
    chosen = [names[index % len(names)] for index in range(count)]
    options = {"weights": None, "out_size": OUT, "min_size": (12, 16)}
    return de.Ensemble([de.DenseModel(name, **options).eval() for name in chosen]).eval()


def amp_loop(ensemble: de.Ensemble) -> Method:
    """The naive loop with two lines more: channels_last, and autocast in bfloat16."""
    loop = naive_loop(ensemble.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def run(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return loop(images.contiguous(memory_format=torch.channels_last))

    return run


def ours(ensemble: de.Ensemble, backend: str, precision: str, images: Tensor) -> Method:
    """densemble as ``de.predict`` runs it, recorded for this shape."""
    predict = batch_predictor(prepared(ensemble, backend, precision), ())
    for _ in range(3):
        predict(images)
    return lambda images: predict(images).mean


@torch.inference_mode()
def measure_batches(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    device = torch.device(arguments.device)
    plain, names = members(len(arguments.names), arguments.names).to(device), arguments.backends
    limit = max(measure_limits(device).convolution.values())
    flops = sum(count_work(for_inference(member), synthetic_images(1, 3, SIZE).to(device)).flops
                for _, member in plain.named_members())  # fmt: skip
    result: dict[str, Any] = {"convolution FLOP/s": limit, "FLOPs per image": flops}
    for batch in arguments.batches:
        images = synthetic_images(batch, 3, SIZE).to(device)
        methods = {
            "naive fp32": naive_loop(plain),
            "naive AMP channels_last": amp_loop(members(len(arguments.names), arguments.names).to(device)),
            **{f"ours {precision}": ours(plain, backend, precision, images) for backend, precision in names},
        }
        expected = methods["naive fp32"](images).cpu()
        samples = interleaved(methods, images, arguments.rounds)
        rows = {}
        for name, seconds in samples.items():
            rows[name] = {
                "milliseconds": 1000 * statistics.median(seconds),
                "times as fast as naive": times_as_fast(seconds, samples["naive fp32"]),
                "times as fast as AMP": times_as_fast(seconds, samples["naive AMP channels_last"]),
                "times the limit": statistics.median(seconds) / (batch * flops / limit),
                "relative error": float((methods[name](images).cpu() - expected).abs().max() / expected.abs().max()),
                "samples": seconds,
            }
        result[f"batch {batch}"] = rows
        show(f"batch {batch}", {name: {k: v for k, v in row.items() if k != "samples"} for name, row in rows.items()})
    return result


def measure_memory(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    device, result = torch.device(arguments.device), {}
    for count in arguments.counts:
        ensemble = members(count, arguments.names)
        weights = weight_bytes(ensemble)
        images = synthetic_images(8, 3, SIZE)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        predict = batch_predictor(prepared(ensemble.to(device), *arguments.backends[-1]), True)
        for _ in range(3):
            predict(images)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        result[f"{count} members"] = {"weights": weights, "peak": peak}
        show(f"memory, {count} members", result[f"{count} members"])
        del predict, ensemble
    return result


def measure_start(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, temporary_cache():
        artifact = de.save(members(len(arguments.names), arguments.names), Path(folder) / "seven.safetensors")
        request = Request(str(artifact), "", *arguments.backends[-1], arguments.device, torch.get_num_threads())
        values = process_values(measure_processes(request, synthetic_images(1, 3, SIZE)))
    show("start", {name: row["cold_start_seconds"] for name, row in values.items()})
    return values


def measure_folder(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    device = torch.device(arguments.device)
    plain = members(len(arguments.names), arguments.names).to(device)
    fast = prepared(plain, *arguments.backends[-1])
    ways = {
        "ours": (fast, Pace.for_device(device)),
        "before": (prepared(plain), Pace(8, readers=1, writers=2)),
    }
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        (source := Path(folder) / "in").mkdir()
        paths = make_images(source, arguments.images, (480, 640))
        for name, (ensemble, pace) in ways.items():
            part = paths if name == "ours" else paths[: max(len(paths) // 8, 8)]
            (out := Path(folder) / name).mkdir()
            compute = batch_predictor(ensemble, frozenset())
            list(predict_files(ensemble, make_items(part[: 3 * pace.batch]), compute, Output(out, ("map",)), pace,
                               Seconds()))  # fmt: skip
            (again := Path(folder) / f"{name}-timed").mkdir()
            started = time.perf_counter()
            done = list(predict_files(ensemble, make_items(part), compute, Output(again, ("map",)), pace, Seconds()))
            result[name] = {"images": len(done), "wall": time.perf_counter() - started}
        images = synthetic_images(Pace.for_device(device).batch, 3, (480, 640))
        compute = batch_predictor(fast, frozenset())
        for _ in range(3):
            compute(images)
        rounds = max(len(paths) // len(images), 1)
        started = time.perf_counter()
        for _ in range(rounds):
            compute(images)
        alone = (time.perf_counter() - started) / (rounds * len(images))
    rate = {name: row["images"] / row["wall"] for name, row in result.items()}
    result |= {
        "images per second": rate, "networks alone, images per second": 1 / alone,
        "wall over networks": 1 / alone / rate["ours"], "times as fast as before": rate["ours"] / rate["before"],
    }  # fmt: skip
    show("folder", result)
    return result


MEASURE = {"batches": measure_batches, "memory": measure_memory, "start": measure_start, "folder": measure_folder}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny inputs on the CPU; nothing is written")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    arguments.device, arguments.names = "cuda", tuple(SEVEN)
    arguments.batches, arguments.counts = (1, 8, 32), (1, 3, 7, 14)
    arguments.backends = (("cudagraph", "fp32"), ("cudagraph", "bf16"))
    if arguments.smoke:
        arguments.device, arguments.names = "cpu", ("squeezenet1_1", "resdeconv")
        arguments.batches, arguments.counts, arguments.images, arguments.rounds = (1, 2), (1, 2), 16, 1
        arguments.backends = (("eager", "fp32"),)
    return arguments


def main() -> None:
    arguments = parsed()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("skipped: there is no GPU; --smoke checks on the CPU that every section runs")
        return
    device, started = torch.device(arguments.device), time.perf_counter()

    def show(name: str, values: Any) -> None:
        print(f"[{time.perf_counter() - started:5.0f} s] {name}: {json.dumps(values)}", flush=True)

    result: dict[str, Any] = {**environment(), "machine": machine(device), "size": list(SIZE), "out_size": list(OUT)}
    with shown(lambda line: print(f"    {line}", flush=True)):
        for section in arguments.sections:
            result[section] = MEASURE[section](arguments, show)
    if not arguments.smoke:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
