"""Interleaved timing of several methods, so that other load on the machine affects all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

Method = Callable[[Tensor], Tensor]
"""Images ``(B, C, H, W)`` in [0, 1] -> maps ``(B, K, h, w)``."""

Name = TypeVar("Name", bound=Hashable)


@torch.inference_mode()
def timed(method: Method, images: Tensor) -> tuple[float, Tensor]:
    """Return the seconds of one call until its result is available, and the result."""
    copy = images.clone()  # a new tensor, so that values cached for an earlier tensor are not reused
    synchronize(images.device)
    started = time.perf_counter()
    maps = method(copy)
    synchronize(images.device)
    return time.perf_counter() - started, maps


def interleaved(
    methods: Mapping[Name, Method], images: Tensor, rounds: int, most_seconds: float = math.inf
) -> dict[Name, list[float]]:
    """Return the seconds of each method in every round.

    Every round begins with another method. A first round warms up and is not returned.

    Args:
        methods: methods by name.
        images: ``(B, C, H, W)`` in [0, 1].
        rounds: number of rounds after the warm-up.
        most_seconds: no further round begins after this time; one round always runs.
    """
    timers = {name: partial(_seconds, method, images) for name, method in methods.items()}
    started = time.perf_counter()
    time_round(timers, 0)

    def numbers() -> Iterator[int]:
        for number in range(1, rounds + 1):
            if number > 1 and time.perf_counter() - started > most_seconds:
                return
            yield number

    return time_rounds(timers, numbers())


def _seconds(method: Method, images: Tensor) -> float:
    return timed(method, images)[0]


def time_rounds(timers: Mapping[Name, Callable[[], float]], numbers: Iterable[int]) -> dict[Name, list[float]]:
    """Run rounds of timers with these numbers, and return the results of each timer."""
    rounds = [time_round(timers, number) for number in numbers]
    return {name: [seconds[name] for seconds in rounds] for name in timers}


def time_round(timers: Mapping[Name, Callable[[], float]], number: int) -> dict[Name, float]:
    """Call each timer once in the order of round ``number``, and return its result: the seconds of one call."""
    return {name: timers[name]() for name in round_order(timers, number)}


def round_order(names: Iterable[Name], number: int) -> list[Name]:
    """Return the names in the order of round ``number``: each round begins with the next name."""
    order = list(names)
    first = number % len(order)
    return order[first:] + order[:first]


def times_as_fast(samples: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the median over the rounds of baseline time divided by method time."""
    return statistics.median(other / sample for sample, other in zip(samples, baseline, strict=True))


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
