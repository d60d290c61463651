"""Time of one prediction: the ensemble against the naive loop over the same members, interleaved in one process.

The naive loop keeps every member's map and averages the stack; the ensemble keeps running sums. Writes
benchmarks/results/ensemble.json with the raw samples.

    python benchmarks/bench_ensemble.py [--size 192x256] [--batch 2] [--rounds 9]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from environment import environment

import densemble as de
from densemble.config import SEVEN
from densemble.shapes import parse_size

RESULT = Path(__file__).parent / "results" / "ensemble.json"


def seconds(run: Callable[[], torch.Tensor]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=(192, 256), help="input height x width")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    members = [de.DenseModel(name, weights=None, out_size=(48, 64), min_size=(12, 16)).eval() for name in SEVEN]
    ensemble = de.Ensemble(members).eval()
    x = torch.rand(arguments.batch, 3, *arguments.size)

    def naive() -> torch.Tensor:
        return torch.stack([torch.sigmoid(member(x)) for member in members]).mean(0)

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "naive loop": naive,
        "ensemble": lambda: ensemble(x),
        "ensemble.predict (with uncertainty)": lambda: ensemble.predict(x).mean,
    }
    difference = float((ensemble(x) - naive()).abs().max())
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(arguments.rounds + 1):
        for name, run in ways.items():
            taken = seconds(run)
            if round_number:  # the first round warms up
                samples[name].append(taken)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    result = {
        **environment(),
        "members": list(SEVEN),
        "size": list(arguments.size),
        "batch": arguments.batch,
        "largest difference": difference,
        "median seconds": medians,
        "ratio to naive": {name: value / medians["naive loop"] for name, value in medians.items()},
        "samples": samples,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, value in medians.items():
        print(f"{name:38} {value:7.3f} s   {value / medians['naive loop']:.3f} x naive")
    print(f"largest difference {difference:.1e}; raw samples in {RESULT}")


if __name__ == "__main__":
    main()
