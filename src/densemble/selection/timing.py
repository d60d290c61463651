"""Milliseconds per image of each candidate on this machine: measured interleaved, once, and kept in the run."""

import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from densemble.evaluation.benchmark.interleave import in_turn
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference
from densemble.selection.variants import Candidate
from densemble.shapes import Size
from densemble.storage.runs import RunFolder, read_json, write_json

ROUNDS = 7
"""Fewest rounds after the warm-up, unless they would take more than ``MOST_SECONDS``."""
MOST_ROUNDS, ENOUGH_SECONDS = 25, 2.0
"""Small networks are measured in more rounds, while all rounds together take less than ``ENOUGH_SECONDS``."""
MOST_SECONDS = 60.0
"""Limit of all rounds together; at least one round is measured."""

Clock = Callable[[], float]
Name = TypeVar("Name", bound=Hashable)


def milliseconds(
    run: RunFolder, candidates: Sequence[Candidate], size: Size, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Median milliseconds for one image, by name of the candidate.

    Candidates with equal networks and views share one measurement. When a candidate is new, all are measured again:
    only times of the same rounds can be compared.

    Args:
        run: keeps ``milliseconds.json`` for this machine, number of threads and size.
        candidates: whose weights can be read.
        size: (H, W) of the image.
        clock: seconds.
    """
    machine = f"{platform.node()}, {torch.get_num_threads()} threads, {size[0]}x{size[1]}"
    kept = read_json(run.milliseconds) if run.milliseconds.is_file() else {}
    # Files without "rounds" were measured one candidate after the other.
    known: dict[str, float] = kept["milliseconds"] if kept.get("machine") == machine and "rounds" in kept else {}
    if any(candidate.name not in known for candidate in candidates):
        labels = {candidate.name: f"{candidate.spec.as_dict()} {candidate.view}" for candidate in candidates}
        distinct = {labels[candidate.name]: candidate for candidate in candidates}
        samples = measure({label: _call(candidate, size) for label, candidate in distinct.items()}, clock)
        medians = {label: round(statistics.median(taken) * 1000, 3) for label, taken in samples.items()}
        known = {name: medians[label] for name, label in labels.items()}
        rounds = min(len(taken) for taken in samples.values())
        write_json(run.milliseconds, {"machine": machine, "rounds": rounds, "milliseconds": known})
    return {candidate.name: known[candidate.name] for candidate in candidates}


def measure(calls: Mapping[Name, Callable[[], object]], clock: Clock = time.perf_counter) -> dict[Name, list[float]]:
    """Seconds of each call in every round; every round makes all calls and begins with another one.

    Two rounds warm up and are not kept. The second one decides how many follow, see ``ROUNDS`` and ``MOST_SECONDS``;
    the first one is slower, because memory and kernels are prepared in it.
    """
    samples: dict[Name, list[float]] = {name: [] for name in calls}
    one_round(calls, 0, clock)
    rounds = rounds_for(sum(one_round(calls, 1, clock).values()))
    for number in range(rounds):
        for name, seconds in one_round(calls, number, clock).items():
            samples[name].append(seconds)
    return samples


def one_round(calls: Mapping[Name, Callable[[], object]], number: int, clock: Clock) -> dict[Name, float]:
    """Seconds of each call, made once in the order of round ``number``."""
    taken = {}
    for name in in_turn(calls, number):
        started = clock()
        calls[name]()
        taken[name] = clock() - started
    return taken


def rounds_for(seconds: float) -> int:
    """How many rounds to measure when one takes ``seconds``."""
    seconds = max(seconds, 1e-9)
    wished = min(max(ROUNDS, int(ENOUGH_SECONDS / seconds)), MOST_ROUNDS)
    return max(min(wished, int(MOST_SECONDS / seconds)), 1)


def _call(candidate: Candidate, size: Size) -> Callable[[], Tensor]:
    """Computes the map of one random image; weights do not change the time and are left random."""
    network: DenseModel = for_inference(DenseModel.from_spec(candidate.spec))
    member = candidate.member(network)
    image = torch.rand(1, candidate.spec.in_channels, *size)

    def call() -> Tensor:
        with torch.no_grad():
            maps: Tensor = member(image)
        return maps

    return call
