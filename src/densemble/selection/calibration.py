"""Temperatures of candidates and calibration of an ensemble, fitted on held-out images."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densemble.ensemble.calibrate import (
    Calibration,
    Temperature,
    fit_temperature,
    fit_variance_scaling,
    fit_vector_scaling,
)
from densemble.ensemble.combination import Combination
from densemble.selection.choose import combined_statistics, halves
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.options import calibrations_for

Report = Callable[[str], None]
_VALUES_AT_ONCE = 2**21


def member_temperatures(held: HeldOut, way: str, report: Report = lambda line: None) -> HeldOut:
    """The candidates with temperatures, each fitted on all pixels of ``held``; memory holds those of one candidate.

    What the ensemble still lacks (Rahaman & Thiery 2021) is left to the calibration of the ensemble.

    Args:
        held: candidates and images, best a sample of their pixels.
        way: of calibrating; ``none`` leaves temperatures at 1, and so do tasks without them.
        report: called with one line of text for a temperature at a bound.
    """
    task, found = held.task, []
    if way == "none" or not task.has_temperature:
        return held
    plain = held.tempered((1.0,) * len(held.names))
    for name in held.names:
        found.append(_temperature(plain.of([name]), lambda line, of=name: report(f"{of}: {line}")))  # type: ignore[misc]
    return held.tempered(found)


def _temperature(held: HeldOut, report: Report) -> float:
    """Of a single candidate."""
    pixels = _blocks((maps[0], target) for maps, (target, _) in held)
    return fit_temperature(lambda: pixels, held.task.distribution, int(held.task.fill), report)


def fit_calibration(
    held: HeldOut, combination: Combination, way: str, report: Report = lambda line: None
) -> Combination:
    """The combination with a calibration fitted on all pixels of ``held``, best a sample; memory holds them."""
    plain = replace(combination, calibration=None)
    task = held.task
    found: Calibration | None = None
    if way in ("temperature", "vector"):
        pixels = _blocks(held.combined(plain))
        if way == "temperature":
            value = fit_temperature(lambda: pixels, task.distribution, int(task.fill), report)
            found = None if value == 1 else Temperature(value, task.distribution)
        else:
            found = fit_vector_scaling(lambda: pixels, task.distribution, int(task.fill), report)
    elif way == "variance":
        estimates = _blocks(_estimates(held, plain))
        found = fit_variance_scaling(lambda: estimates, task.invalid_below)
    return replace(plain, calibration=found)


def _estimates(held: HeldOut, plain: Combination) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Mean and variance ``(1, h, w)`` and target of each image."""
    for maps, (target, _) in held:
        prediction = plain.predict(maps[:, None], {"variance"})
        yield prediction.mean[0], prediction.spread()[0], target


def _blocks(images: Iterable[tuple[Tensor, ...]]) -> list[Any]:
    """Maps and targets of all images as few tensors of shape ``(..., P, 1)``: many small passes cost more than few."""
    found: list[tuple[Tensor, ...]] = []
    pending: list[tuple[Tensor, ...]] = []

    def flush() -> None:
        if pending:
            found.append(tuple(torch.cat(parts, dim=-2) for parts in zip(*pending, strict=True)))
            pending.clear()

    for image in images:
        pending.append(tuple(part.flatten(-2)[..., None] for part in image))
        if sum(parts[0].numel() for parts in pending) > _VALUES_AT_ONCE:
            flush()
    flush()
    return found


def best_calibration(held: HeldOut, combination: Combination) -> str:
    """The way of calibrating with the lower negative log-likelihood on crossed halves of the images.

    Vector scaling has 2K parameters: with few images it can be worse than one temperature.
    """
    task = held.task
    ways = calibrations_for(task)
    first, second = halves(held)
    if "vector" not in ways or not first:
        return ways[0]
    objective = task.objective("nll")
    losses = {}
    for way in ("temperature", "vector"):
        crossed = ((first, second), (second, first))
        parts = [(held.only(unseen), fit_calibration(held.only(seen), combination, way)) for seen, unseen in crossed]
        loss = float(objective.value(combined_statistics(parts, [objective])[0].sum(0)))
        losses[way] = loss if math.isfinite(loss) else math.inf
    return min(losses, key=lambda way: losses[way])
