"""The measurement of one ensemble: every method on a batch, in fresh processes, and on a split."""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
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

Say = Callable[[str], None]
Kinds = Sequence[tuple[str, str]]
"""Backends and precisions of our methods."""

FIRST, REMEMBERED = "ours, first time", "ours, choices remembered"


@dataclass(frozen=True)
class MethodCost:
    """What one method to run the ensemble takes for a batch.

    Attributes:
        samples: seconds of every round.
        times_as_fast: as the naive loop; median over the rounds.
        relative_error: largest difference to the naive loop's map, relative to that map's largest value.
        least_seconds: work of all members divided by the convolution peak of what each computes in; ``None`` where one
            was not measured, and for methods of others.
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
    """What an ensemble takes for a batch.

    Attributes:
        limits: of the machine, measured before and after.
        members: each by itself.
        methods: by name, the naive loop first.
    """

    limits: MachineLimits
    members: list[MemberCost]
    methods: dict[str, MethodCost]


@contextmanager
def choosing_anew() -> Iterator[Path]:
    """A cache of its own inside, empty at first: nothing that was chosen on another day is measured."""
    before = os.environ.get("DENSEMBLE_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DENSEMBLE_CACHE_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["DENSEMBLE_CACHE_DIR"]
            if before is not None:
                os.environ["DENSEMBLE_CACHE_DIR"] = before


def measure_batch(
    ensemble: Ensemble, images: Tensor, kinds: Kinds, rounds: int, say: Say, others: Mapping[str, Method] | None = None
) -> BatchCost:
    """The naive loop, ours, and methods of others in turn, all on the same members and weights.

    Args:
        ensemble: in eval mode.
        images: ``(B, C, H, W)`` in [0, 1], on its device.
        kinds: of our methods.
        rounds: see :func:`interleaved`.
        say: progress.
        others: further methods by name.

    Raises:
        UsageError: a backend or precision that cannot be used here.
    """
    fast = accelerated(ensemble, images, kinds, say)
    limits = measure_limits(images.device)
    methods: dict[str, Method] = {NAIVE: naive_loop(ensemble), **(others or {}), **fast}
    say(f"{len(methods)} methods in turn, {rounds} rounds")
    samples = interleaved(methods, images, rounds)
    errors = relative_errors(methods, images)
    say(f"{len(ensemble.members)} members in turn, {rounds} rounds")
    alone = accelerated(ensemble, images, kinds, say, together=False)
    members = measure_members(ensemble, alone, images, rounds, say)
    limits |= measure_limits(images.device)
    costs = {
        name: MethodCost(own, times_as_fast(own, samples[NAIVE]), errors[name], _least_seconds(members, name, limits))
        for name, own in samples.items()
    }
    return BatchCost(limits, members, costs)


def _least_seconds(members: Sequence[MemberCost], method: str, limits: MachineLimits) -> float | None:
    if any(method not in member.samples for member in members):
        return None
    each = [member.least_seconds(method, limits) for member in members]
    known = [seconds for seconds in each if seconds is not None]
    return sum(known) if len(known) == len(each) else None


def measure_processes(request: Request, images: Tensor, say: Say) -> dict[str, FreshProcess]:
    """Fresh processes from their start to the first map: the naive loop, ours with nothing and with all remembered.

    What the second one chose is left in this process's cache.

    Args:
        request: of ours; its ``images`` are not looked at.
        images: ``(B, C, H, W)`` in [0, 1].
        say: progress.

    Raises:
        ResourceError: one failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images.cpu().numpy())
        request = replace(request, images=str(path))
        asked = {NAIVE: replace(request, backend="", precision=""), FIRST: request, REMEMBERED: request}
        found = {}
        for name, one in asked.items():
            say(f"a fresh process: {name}")
            found[name] = run_fresh(one)
    return found


def measure_split(
    ensemble: Ensemble,
    data: FolderData,
    split: str,
    kinds: Kinds,
    policy: Policy | None,
    images: int | None,
    say: Say,
) -> dict[str, MethodScore]:
    """Score and time of the naive loop and ours on a split, image by image.

    Args:
        ensemble: in eval mode.
        data: images and maps for the same task.
        split: of the data.
        kinds: of our methods.
        policy: of the ensemble's cascade; also measured on the last of the kinds.
        images: only so many; default all.
        say: progress.

    Raises:
        DataError: no such split, or files that cannot be used.
    """
    device = next(ensemble.parameters()).device
    first, _, _ = next(iter(images_with_targets(data, split)))
    fast = accelerated(ensemble, first.to(device), kinds, say)
    methods: dict[str, Method] = {NAIVE: naive_loop(ensemble), **fast}
    if policy is not None:
        alone = accelerated(ensemble, first.to(device), kinds[-1:], say, together=False)
        methods |= {f"{name}, cascade": cascaded(own, policy) for name, own in alone.items()}
    count = min(len(data.split(split)), images or len(data.split(split)))

    def progress(done: int) -> None:
        if done % 20 == 0 or done == count:
            say(f"{done}/{count} images by {len(methods)} methods")

    with torch.no_grad():
        return score_methods(methods, ensemble.task, islice(images_with_targets(data, split), count), device, progress)
