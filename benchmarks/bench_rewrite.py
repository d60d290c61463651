"""Compare the seven members before and after rewriting for inference: operations, time, equality of maps.

"plain" is the reference. "folded" folds batch normalization into the convolutions, and exchanges resizing and
convolution where the nine narrow feature maps are no wider. "fewer operations" exchanges them wherever that saves
operations. All variants run interleaved in one process. Writes benchmarks/results/rewrite.json with the raw samples.

    python benchmarks/bench_rewrite.py [--size 192x256] [--batch 2] [--rounds 9] [--heads skip,upsample]
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import nn

import densemble as de
from densemble.config import SEVEN
from densemble.nets.counting import count_macs
from densemble.nets.rewrite import for_inference
from densemble.shapes import Size, parse_size

RESULT = Path(__file__).parent / "results" / "rewrite.json"
OUT_SIZE = (48, 64)


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
        "fewer operations": for_inference(plain, "fewer_operations"),
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
            "fewer operations": relative_error(for_inference(exact, "fewer_operations")(x.double()), reference),
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
