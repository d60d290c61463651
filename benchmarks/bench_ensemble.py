"""Measure the time of one prediction with the naive loop, three other libraries and densemble, with the same members.

By default, the members are the seven of the default configuration with random weights, at two sizes. All variants run
interleaved:

- The naive loop runs one member after the other as PyTorch does by default (eager, float32, channels first) and
  averages the stack of their maps.
- torch-uncertainty's `deep_ensembles`, pytorch-toolbelt's `Ensembler` and MONAI's `MeanEnsemble` do the same. MONAI's
  sliding window gets the whole image as its only window, so it computes the same map.
- Two variants are the same loop with options of PyTorch that need one or two lines: `channels_last`, and
  `channels_last` with bfloat16 autocast.

The result also contains the operations of each member, the limits of the machine measured in the same run, peak memory
and cold start of new processes, and, with `--data`, the loss of the score.

Writes benchmarks/results/ensemble.json with the raw samples, and docs/reference/speed.md.

    pip install -c constraints.txt -e '.[bench,openvino,onnx]'
    python benchmarks/bench_ensemble.py [--quick] [--rounds 9] [--keep 0.995] [--artifact FILE --data DATA]...

`--artifact` can be given several times, each with its `--data`. These ensembles are measured in addition to the default
configuration.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ensemble_libraries import MODULES, OTHERS, PYTORCH, installed
from environment import environment
from speed_page import write_page
from torch import Tensor

import densemble as de
from densemble.commands.split_data import data_for
from densemble.config import SEVEN
from densemble.evaluation.benchmark.benchmark_images import split_images, synthetic_images
from densemble.evaluation.benchmark.fresh_process import Request
from densemble.evaluation.benchmark.interleave import Method
from densemble.evaluation.benchmark.machine import machine
from densemble.evaluation.benchmark.measure_ensemble import (
    measure_batch,
    measure_processes,
    measure_split,
    temporary_cache,
)
from densemble.evaluation.benchmark.plain_values import batch_values, process_values, score_values
from densemble.messages import shown
from densemble.shapes import Size, format_size, parse_size
from densemble.tasks import Task

RESULT = Path(__file__).parent / "results" / "ensemble.json"
KINDS = (("eager", "fp32"), ("auto", "fp32"), ("auto", "bf16"))
CPU = torch.device("cpu")
SLIDING = "MONAI, sliding window"


@dataclass(frozen=True)
class Case:
    """One ensemble at one size.

    Attributes:
        data: data set whose images are used and scored; ``None``: drawn images.
        processes: also measure new processes.
    """

    name: str
    ensemble: de.Ensemble
    size: Size
    batch: int
    data: Path | None = None
    processes: bool = True


def say(line: str) -> None:
    print(line, flush=True)


def default_members(size: Size, out_size: Size | None, names: Sequence[str]) -> de.Ensemble:
    """Members of the default configuration with random weights."""
    members = {}
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        members[name] = de.DenseModel(name, weights=None, out_size=out_size, input_size=size)
    return de.Ensemble(members).eval()


def equal_mean(ensemble: de.Ensemble) -> de.Ensemble:
    """The mean of the same members without weights and calibration, which all libraries support."""
    return de.Ensemble(dict(ensemble.named_members()), task=ensemble.task).eval()


def others(ensemble: de.Ensemble) -> dict[str, Method]:
    """The naive loop with options of PyTorch, and the installed other libraries, by name."""
    members, task = list(ensemble.members.values()), ensemble.task
    ways: dict[str, Method] = {name: make(members, task) for name, make in PYTORCH.items()}
    ways |= {name: OTHERS[name](members, task) for name in installed()}
    if "MONAI" in ways:
        ways[SLIDING] = partial(sliding_window, members, task)
    return ways


def sliding_window(members: Sequence[torch.nn.Module], task: Task, images: Tensor) -> Tensor:
    """`sliding_window_inference` of every member, then `MeanEnsemble`."""
    from monai.inferers import sliding_window_inference
    from monai.transforms import MeanEnsemble

    window = tuple(images.shape[-2:])
    maps = [
        task.activation(sliding_window_inference(images, window, len(images), member, overlap=0.5, mode="gaussian"))
        for member in members
    ]
    return MeanEnsemble()(maps)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Everything about one case except its scores."""
    say(f"\n{case.name}, {format_size(case.size)}, batch {case.batch}")
    ensemble = equal_mean(case.ensemble)
    if case.data is None:
        images = synthetic_images(case.batch, ensemble.in_channels, case.size)
    else:
        images = split_images(data_for(ensemble, case.data, None), "val", case.batch, case.size)
    values: dict[str, Any] = {
        "name": case.name, "members_of": list(ensemble.members), "size": list(case.size), "batch": case.batch,
    }  # fmt: skip
    if case.processes:
        with tempfile.TemporaryDirectory() as folder:
            artifact = Path(folder) / "ensemble.safetensors"
            de.save(ensemble, artifact)
            request = Request(str(artifact), "", "auto", "bf16", "cpu", torch.get_num_threads())
            values["processes"] = process_values(measure_processes(request, images))
    values |= batch_values(measure_batch(ensemble, images, KINDS, rounds, others(ensemble)))
    unknown = {member["name"]: member["unknown"] for member in values["members"] if member["unknown"]}
    assert not unknown, f"operators that were counted as no work: {unknown}"
    show(values)
    return values


def score(case: Case, keep: float | None, images: int | None) -> dict[str, Any]:
    """Score and time on the validation images, for the assembled ensemble and the variants, including its cascade."""
    data = data_for(case.ensemble, case.data, None)
    task, cascade = case.ensemble.task, case.ensemble.cascade
    policy = cascade.for_keep(keep) if keep is not None and cascade is not None else None
    found = measure_split(case.ensemble, data, "val", KINDS, policy, images)
    rows = score_values(found, task.primary, task.higher_is_better)
    for name, row in rows.items():
        say(f"{name:28} {task.primary} {row[task.primary]:.4f}, lost {row['lost']:+z.5f}, {row['times_as_fast']:.2f} x")
    checks = [] if policy is None or cascade is None else [asdict(check) for check in cascade.checks]
    return {
        "primary": task.primary, "keep": keep, "policy": None if policy is None else asdict(policy), "checks": checks,
        "ways": rows,
    }  # fmt: skip


def show(values: dict[str, Any]) -> None:
    for name, way in values["ways"].items():
        least = "" if way["times_the_least"] is None else f", {way['times_the_least']:.2f} x the least"
        say(
            f"{name:28} {way['median_seconds'] * 1000:8.1f} ms   {way['times_as_fast']:.2f} times as fast, relative "
            f"error {way['relative_error']:.1e}{least}"
        )


def cases(arguments: argparse.Namespace) -> list[Case]:
    names = SEVEN[:1] + SEVEN[4:5] if arguments.quick else SEVEN
    small, large = (192, 256), (360, 480)
    found = [
        Case("default members", default_members(small, (48, 64), names), small, batch=2),
        Case("default members", default_members(large, None, names), large, batch=1, processes=False),
    ]
    for path, data in zip(arguments.artifact, arguments.data, strict=True):
        found.append(Case(path.stem, de.load(path), arguments.size, 1, data))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--artifact", type=Path, action="append", default=[])
    parser.add_argument("--data", type=Path, action="append", default=[], help="one for every artifact")
    parser.add_argument("--size", type=parse_size, default=(192, 256), help="at which artifacts are timed")
    parser.add_argument("--keep", type=float, help="also the cascade that keeps this share of the score")
    parser.add_argument("--images", type=int, help="score only so many")
    parser.add_argument("--quick", action="store_true", help="two members, two rounds: to see that all works")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if len(arguments.artifact) != len(arguments.data):
        parser.error("give one --data for every --artifact")
    torch.set_num_threads(arguments.threads)
    missing = [name for name in MODULES if name not in installed()]
    if missing:
        say(f"not installed and left out: {', '.join(missing)} (pip install 'densemble[bench]')")
    rounds = 2 if arguments.quick else arguments.rounds
    rows = []
    for case in cases(arguments):
        with temporary_cache(), shown(say):
            row = measure(case, rounds)
            if case.data is not None:
                row["scores"] = score(case, arguments.keep, arguments.images)
        rows.append(row)
    result = {
        **environment("torch-uncertainty", "pytorch-toolbelt", "monai", "openvino", "onnxruntime"),
        "measured_on": machine(CPU),
        "rounds": rounds,
        "left_out": missing,
        "cases": rows,
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.out == RESULT:
        write_page()
    say(f"raw samples in {arguments.out}")


if __name__ == "__main__":
    main()
