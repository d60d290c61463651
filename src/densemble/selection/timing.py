"""Milliseconds per image of each candidate on this machine: measured once, interleaved, and stored in the run."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from densemble.evaluation.benchmark.interleave import Name, time_round, time_rounds
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference
from densemble.progress.phases import track
from densemble.selection.variants import Candidate
from densemble.shapes import Size
from densemble.storage.run_records import MillisecondsRecord, optional_record
from densemble.storage.runs import RunFolder
from densemble.storage.writing import write_json

ROUNDS = 7
"""Minimum number of rounds after the warm-up, unless they would take more than ``MAX_SECONDS``."""
MAX_ROUNDS, ENOUGH_SECONDS = 25, 2.0
"""Small networks are measured in more rounds, until all rounds together take ``ENOUGH_SECONDS``."""
MAX_SECONDS = 60.0
"""Limit for all rounds together; at least one round is measured."""

Clock = Callable[[], float]


def milliseconds(
    run: RunFolder, candidates: Sequence[Candidate], size: Size, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Return the median milliseconds for one image, by name of the candidate.

    Candidates with equal networks and views share one measurement. If one candidate is new, all are measured again,
    because only times of the same rounds are comparable.

    Args:
        run: run folder, which stores ``milliseconds.json`` for this machine, number of threads and size.
        candidates: candidates with readable weights.
        size: (H, W) of the image.
        clock: function that returns seconds.
    """
    machine = f"{platform.node()}, {torch.get_num_threads()} threads, {size[0]}x{size[1]}"
    kept = optional_record(run.milliseconds, MillisecondsRecord, "the candidates are measured again") or {}
    # Files without "rounds" were measured one candidate after the other.
    known: dict[str, float] = kept["milliseconds"] if kept.get("machine") == machine and "rounds" in kept else {}
    if any(candidate.name not in known for candidate in candidates):
        labels = {candidate.name: f"{candidate.spec.as_dict()} {candidate.view}" for candidate in candidates}
        distinct = {labels[candidate.name]: candidate for candidate in candidates}
        samples = measure({label: _call(candidate, size) for label, candidate in distinct.items()}, clock)
        medians = {label: round(statistics.median(seconds) * 1000, 3) for label, seconds in samples.items()}
        known = {name: medians[label] for name, label in labels.items()}
        rounds = min(len(seconds) for seconds in samples.values())
        write_json(run.milliseconds, {"machine": machine, "rounds": rounds, "milliseconds": known})
    return {candidate.name: known[candidate.name] for candidate in candidates}


def measure(calls: Mapping[Name, Callable[[], object]], clock: Clock = time.perf_counter) -> dict[Name, list[float]]:
    """Return the seconds of each call in every round; every round makes all calls and begins with the next one.

    Two warm-up rounds are not returned. The first one is slower, because it prepares memory and kernels. The second one
    determines the number of rounds, see ``ROUNDS`` and ``MAX_SECONDS``.
    """
    timers = {name: partial(_seconds, call, clock) for name, call in calls.items()}
    time_round(timers, 0)
    rounds = rounds_for(sum(time_round(timers, 1).values()))
    return time_rounds(timers, track(range(rounds), "round", rounds, steps=True))


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    started = clock()
    call()
    return clock() - started


def rounds_for(seconds: float) -> int:
    """Return the number of rounds to measure if one round takes ``seconds``."""
    seconds = max(seconds, 1e-9)
    rounds = min(max(ROUNDS, int(ENOUGH_SECONDS / seconds)), MAX_ROUNDS)
    return max(min(rounds, int(MAX_SECONDS / seconds)), 1)


def _call(candidate: Candidate, size: Size) -> Callable[[], Tensor]:
    """Return a function that predicts one random image; the weights are random, because they do not affect the time."""
    network: DenseModel = for_inference(DenseModel.from_spec(candidate.spec))
    member = candidate.member(network)
    image = torch.rand(1, candidate.spec.in_channels, *size)

    def call() -> Tensor:
        with torch.no_grad():
            maps: Tensor = member(image)
        return maps

    return call
