"""Times of several methods to do the same, taken in turn: what else the machine does falls on all alike."""

import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Method = Callable[[Tensor], Tensor]
"""Images ``(B, C, H, W)`` in [0, 1] -> maps ``(B, K, h, w)``."""

Name = TypeVar("Name", bound=Hashable)


@torch.inference_mode()
def timed(method: Method, images: Tensor) -> tuple[float, Tensor]:
    """Seconds of one call until its result is there, and that result."""
    own = images.clone()  # what a method has prepared for an earlier tensor must not be found again
    synchronize(images.device)
    started = time.perf_counter()
    maps = method(own)
    synchronize(images.device)
    return time.perf_counter() - started, maps


def interleaved(methods: Mapping[Name, Method], images: Tensor, rounds: int) -> dict[Name, list[float]]:
    """Seconds of each method in every round.

    Every round begins with another method; a first round warms up and is not kept.

    Args:
        methods: by name.
        images: ``(B, C, H, W)`` in [0, 1].
        rounds: how many are kept.
    """
    samples: dict[Name, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name in in_turn(methods, number):
            taken, _ = timed(methods[name], images)
            if number:
                samples[name].append(taken)
    return samples


def in_turn(names: Iterable[Name], number: int) -> list[Name]:
    """The order of a round: each begins with another one."""
    row = list(names)
    first = number % len(row)
    return row[first:] + row[:first]


def times_as_fast(samples: Sequence[float], baseline: Sequence[float]) -> float:
    """Median over the rounds of the baseline's time divided by the own time in the same round."""
    return statistics.median(other / own for own, other in zip(samples, baseline, strict=True))


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
