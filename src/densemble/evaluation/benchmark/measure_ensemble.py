"""Benchmark of one ensemble: every method on a batch, in fresh processes, and on a split."""

import logging
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.ensemble.cascade import Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.evaluation.benchmark.execution_modes import NAIVE, accelerated, cascaded, naive_loop, relative_errors
from densemble.evaluation.benchmark.fresh_process import FreshProcess, Request, run_fresh
from densemble.evaluation.benchmark.interleave import Method, interleaved, times_as_fast
from densemble.evaluation.benchmark.machine_limits import MachineLimits, measure_limits
from densemble.evaluation.benchmark.member_timing import MemberCost, measure_members
from densemble.evaluation.benchmark.split_scores import MethodScore, score_methods
from densemble.evaluation.scores import images_with_targets
from densemble.storage.arrays import write_npy
from densemble.storage.writing import scratch_folder

log = logging.getLogger(__name__)

Modes = Sequence[tuple[str, str]]
"""Backends and precisions of the fast ensembles."""

FIRST, REMEMBERED = "ours, first time", "ours, choices remembered"


@dataclass(frozen=True)
class MethodCost:
    """Cost of one method to run the ensemble on a batch.

    Attributes:
        samples: seconds of every round.
        times_as_fast: time of the naive loop divided by the time of this method, median over the rounds.
        relative_error: largest difference to the map of the naive loop, relative to the largest value of that map.
        least_seconds: work of all members divided by the convolution peak of their precisions; ``None`` if one peak was
            not measured, and for methods of other libraries.
    """

    samples: list[float]
    times_as_fast: float
    relative_error: float
    least_seconds: float | None

    @property
    def seconds(self) -> float:
        """Median time."""
        return statistics.median(self.samples)


@dataclass(frozen=True)
class BatchCost:
    """Cost of an ensemble for a batch.

    Attributes:
        limits: limits of the machine, the higher of the measurements before and after the methods.
        members: cost of each member.
        methods: cost of each method by name, the naive loop first.
    """

    limits: MachineLimits
    members: list[MemberCost]
    methods: dict[str, MethodCost]


@contextmanager
def temporary_cache() -> Iterator[Path]:
    """Use an empty temporary cache, so that no choice of an earlier run is measured."""
    before = os.environ.get("DENSEMBLE_CACHE_DIR")
    with scratch_folder() as folder:
        os.environ["DENSEMBLE_CACHE_DIR"] = str(folder)
        try:
            yield folder
        finally:
            del os.environ["DENSEMBLE_CACHE_DIR"]
            if before is not None:
                os.environ["DENSEMBLE_CACHE_DIR"] = before


def measure_batch(
    ensemble: Ensemble,
    images: Tensor,
    modes: Modes,
    rounds: int,
    others: Mapping[str, Method] | None = None,
    most_seconds: float = math.inf,
) -> BatchCost:
    """Measure the naive loop, fast ensembles and other methods in turn, with the same members and weights.

    Args:
        ensemble: the ensemble in eval mode.
        images: ``(B, C, H, W)`` in [0, 1], on the device of the ensemble.
        modes: backends and precisions of the fast ensembles.
        rounds: see :func:`interleaved`.
        others: further methods by name.
        most_seconds: most seconds of the rounds of methods and of those of members, see :func:`interleaved`.

    Raises:
        UsageError: a backend or precision that is not available here.
    """
    fast = accelerated(ensemble, images, modes)
    limits = measure_limits(images.device)
    methods: dict[str, Method] = {NAIVE: naive_loop(ensemble), **(others or {}), **fast}
    log.info(f"{len(methods)} methods in turn, {rounds} rounds")
    samples = interleaved(methods, images, rounds, most_seconds / 2)
    errors = relative_errors(methods, images)
    log.info(f"{len(ensemble.members)} members in turn, {rounds} rounds")
    members = measure_members(
        ensemble, accelerated(ensemble, images, modes, together=False), images, rounds, most_seconds / 2
    )
    limits |= measure_limits(images.device)
    costs = {
        name: MethodCost(
            seconds, times_as_fast(seconds, samples[NAIVE]), errors[name], _least_seconds(members, name, limits)
        )
        for name, seconds in samples.items()
    }
    return BatchCost(limits, members, costs)


def _least_seconds(members: Sequence[MemberCost], method: str, limits: MachineLimits) -> float | None:
    if any(method not in member.samples for member in members):
        return None
    each = [member.least_seconds(method, limits) for member in members]
    known = [seconds for seconds in each if seconds is not None]
    return sum(known) if len(known) == len(each) else None


def measure_processes(request: Request, images: Tensor) -> dict[str, FreshProcess]:
    """Measure fresh processes from their start to the first map: the naive loop, and a fast ensemble twice.

    The first process with the fast ensemble starts without any remembered choice and leaves its choices in the cache of
    this process; the second one uses them.

    Args:
        request: arguments of the fast ensemble; ``images`` is ignored.
        images: ``(B, C, H, W)`` in [0, 1].

    Raises:
        ResourceError: a process failed.
    """
    with scratch_folder() as folder:
        path = folder / "images.npy"
        write_npy(path, images.cpu().numpy())
        request = replace(request, images=str(path))
        requests = {NAIVE: replace(request, backend="", precision=""), FIRST: request, REMEMBERED: request}
        processes = {}
        for name, each in requests.items():
            log.info(f"a fresh process: {name}")
            processes[name] = run_fresh(each)
    return processes


def measure_split(
    ensemble: Ensemble, data: FolderData, split: str, modes: Modes, policy: Policy | None, images: int | None
) -> dict[str, MethodScore]:
    """Measure score and time of the naive loop and of fast ensembles on a split, image by image.

    Args:
        ensemble: the ensemble in eval mode.
        data: images and targets of the same task.
        split: name of the split.
        modes: backends and precisions of the fast ensembles.
        policy: policy of the ensemble's cascade; it is measured with the last of the modes.
        images: number of images; default: all.

    Raises:
        DataError: no such split, or files that cannot be used.
    """
    device = next(ensemble.parameters()).device
    first, _, _ = next(iter(images_with_targets(data, split)))
    fast = accelerated(ensemble, first.to(device), modes)
    methods: dict[str, Method] = {NAIVE: naive_loop(ensemble), **fast}
    if policy is not None:
        separate = accelerated(ensemble, first.to(device), modes[-1:], together=False)
        methods |= {f"{name}, cascade": cascaded(member_wise, policy) for name, member_wise in separate.items()}
    count = min(len(data.split(split)), images or len(data.split(split)))

    def progress(done: int) -> None:
        if done % 20 == 0 or done == count:
            log.info(f"{done}/{count} images by {len(methods)} methods")

    with torch.no_grad():
        return score_methods(methods, ensemble.task, islice(images_with_targets(data, split), count), device, progress)
