"""Measure time and peak memory of greedy selection among many candidates on many images.

Writes stored predictions of noisy candidates (fp16, mapped from disk as in a run) to a temporary folder, selects in a
new process and prints the peak resident memory of that process, torch included. Writes
benchmarks/results/selection_memory.json.

    python benchmarks/selection_memory.py [--candidates 40] [--images 500] [--size 48x64] [--classes 11] [--threads 1]
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment

from densemble.selection.held_out_predictions import held_out
from densemble.selection.strategies import PATIENCE, ROUNDS, greedy
from densemble.shapes import Size, parse_size
from densemble.tasks import SegmentationTask

RESULT = Path(__file__).parent / "results" / "selection_memory.json"
MEMORY_LIMIT = 1024.0
"""MiB."""


def write_predictions(folder: Path, candidates: int, images: int, classes: int, size: Size) -> None:
    """Softmax maps of candidates of different quality, ``candidate-NN.npy``, and ``truth.npy``."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, classes, (images, -(-size[0] // 8), -(-size[1] // 8)), dtype=np.uint8)
    truth = blocks.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]
    np.save(folder / "truth.npy", truth)
    for number in range(candidates):
        shape = (images, classes, *size)
        kept = np.lib.format.open_memmap(folder / f"candidate-{number:02}.npy", "w+", np.float16, shape)
        spread = random.uniform(1.0, 2.0)
        for image, labels in enumerate(truth):
            logits = torch.from_numpy(random.standard_normal(shape[1:], np.float32) * np.float32(spread))
            logits.scatter_add_(0, torch.from_numpy(labels.astype(np.int64))[None], torch.ones(1, *size))
            kept[image] = torch.softmax(logits, 0).half().numpy()


def peak() -> float:
    """Peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux a child inherits the maximum of getrusage: it would be that of the writer
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # bytes on a Mac


def choose(folder: Path, metric: str, rounds: int, patience: int) -> dict[str, Any]:
    """Greedy selection in this process."""
    maps = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("candidate-*.npy"))]
    truths = [(torch.from_numpy(labels), None) for labels in np.load(folder / "truth.npy")]
    classes = maps[0].shape[1]
    task = SegmentationTask(tuple(f"class {number}" for number in range(classes)))
    held = held_out([f"candidate-{number}" for number in range(len(maps))], maps, truths, task)
    before, started, worked = peak(), time.perf_counter(), time.process_time()
    found = greedy(held, task.objective(metric), rounds, patience)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - worked,
        "peak_mib": peak(),
        "peak_before_mib": before,
        "taken": len(found.order),
        "members": sum(weight > 0 for weight in found.weights),
        "score": found.score,
    }


def measure(folder: Path, metric: str, rounds: int, patience: int, threads: int) -> dict[str, Any]:
    """:func:`choose` in a new process."""
    code = (
        f"import json, torch; torch.set_num_threads({threads}); from pathlib import Path; "
        f"from selection_memory import choose; "
        f"print(json.dumps(choose(Path({str(folder)!r}), {metric!r}, {rounds}, {patience})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--size", type=parse_size, default=(48, 64), help="of the maps, height x width")
    parser.add_argument("--metrics", type=lambda text: text.split(","), default=["miou", "nll"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_predictions(folder, arguments.candidates, arguments.images, arguments.classes, arguments.size)
        on_disk = sum(path.stat().st_size for path in folder.glob("candidate-*.npy")) / 1024**2
        rows = []
        for metric in arguments.metrics:
            row = {"metric": metric, **measure(folder, metric, ROUNDS, PATIENCE, arguments.threads)}
            rows.append(row)
            print(
                f"{metric:6} {row['seconds']:.0f} s ({row['cpu_seconds']:.0f} of CPU), at most "
                f"{row['peak_mib']:.0f} MiB ({row['peak_before_mib']:.0f} before the choice), "
                f"{row['members']} members of {arguments.candidates}",
                flush=True,
            )
    result = {
        **environment(),
        "threads": arguments.threads,
        "candidates": arguments.candidates,
        "pictures": arguments.images,
        "map": [arguments.classes, *arguments.size],
        "predictions_mib": on_disk,
        "limit_mib": MEMORY_LIMIT,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"predictions take {on_disk:.0f} MiB on disk; figures in {RESULT}")
    if any(row["peak_mib"] >= MEMORY_LIMIT for row in rows):
        sys.exit(f"more than {MEMORY_LIMIT:.0f} MiB")


if __name__ == "__main__":
    main()
