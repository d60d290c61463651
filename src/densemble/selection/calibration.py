"""Temperatures of candidates and calibration of an ensemble, fitted on held-out images."""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
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
from densemble.selection.choose import combined_statistics, crossed_halves
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.options import calibrations_for

log = logging.getLogger(__name__)

_VALUES_AT_ONCE = 2**21


def member_temperatures(held: HeldOut, method: str, log_level: int = logging.DEBUG) -> HeldOut:
    """Fit a temperature for each candidate on all pixels of ``held``; the pixels of one candidate are in memory.

    Averaging changes the calibration again (Rahaman & Thiery 2021); :func:`fit_calibration` corrects the ensemble.

    Args:
        held: candidates and images, preferably a sample of their pixels.
        method: calibration method; with ``none``, and for tasks without temperatures, all temperatures stay at 1.
        log_level: level of the message about a temperature at its bound.
    """
    if method == "none" or not held.task.has_temperature:
        return held
    plain = held.tempered((1.0,) * len(held.names))
    return held.tempered([_temperature(plain, name, log_level) for name in held.names])


def _temperature(held: HeldOut, name: str, log_level: int) -> float:
    pixels = _blocks((maps[0], target) for maps, (target, _) in held.of([name]))
    return fit_temperature(
        lambda: pixels,
        held.task.distribution,
        int(held.task.fill),
        lambda line: log.log(log_level, f"{name}: {line}"),
    )


def fit_calibration(
    held: HeldOut, combination: Combination, method: str, log_level: int = logging.DEBUG
) -> Combination:
    """Fit a calibration on all pixels of ``held``, preferably a sample; the pixels are in memory.

    Args:
        held: maps of the members.
        combination: combination of the members; its calibration is replaced.
        method: ``temperature``, ``vector``, ``variance`` or ``none``.
        log_level: level of the message about a temperature at its bound.
    """
    plain = replace(combination, calibration=None)
    task = held.task
    calibration: Calibration | None = None
    report = partial(log.log, log_level)
    if method in ("temperature", "vector"):
        pixels = _blocks(held.combined(plain))
        if method == "temperature":
            value = fit_temperature(lambda: pixels, task.distribution, int(task.fill), report)
            calibration = None if value == 1 else Temperature(value, task.distribution)
        else:
            calibration = fit_vector_scaling(lambda: pixels, task.distribution, int(task.fill), report)
    elif method == "variance":
        estimates = _blocks(_estimates(held, plain))
        calibration = fit_variance_scaling(lambda: estimates, task.invalid_below)
    return replace(plain, calibration=calibration)


def _estimates(held: HeldOut, plain: Combination) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Mean and variance ``(1, h, w)`` and target of each image."""
    for maps, (target, _) in held:
        prediction = plain.predict(maps[:, None], {"variance"})
        yield prediction.mean[0], prediction.spread()[0], target


def _blocks(images: Iterable[tuple[Tensor, ...]]) -> list[Any]:
    """Concatenate the maps and targets of all images to a few tensors ``(..., P, 1)``, which are faster to process."""
    blocks: list[tuple[Tensor, ...]] = []
    pending: list[tuple[Tensor, ...]] = []

    def flush() -> None:
        if pending:
            blocks.append(tuple(torch.cat(parts, dim=-2) for parts in zip(*pending, strict=True)))
            pending.clear()

    for image in images:
        pending.append(tuple(part.flatten(-2)[..., None] for part in image))
        if sum(parts[0].numel() for parts in pending) > _VALUES_AT_ONCE:
            flush()
    flush()
    return blocks


def best_calibration(held: HeldOut, combination: Combination) -> str:
    """Return the calibration method with the lowest negative log-likelihood on crossed halves of the images.

    Vector scaling has 2K parameters: with few images it can be worse than one temperature.
    """
    methods = calibrations_for(held.task)
    crossed = crossed_halves(held)
    if "vector" not in methods or not crossed:
        return methods[0]
    objective = held.task.objective("nll")
    losses = {}
    for method in ("temperature", "vector"):
        parts = [(held.only(unseen), fit_calibration(held.only(seen), combination, method)) for seen, unseen in crossed]
        loss = float(objective.value(combined_statistics(parts, [objective])[0].sum(0)))
        losses[method] = loss if math.isfinite(loss) else math.inf
    return min(losses, key=lambda method: losses[method])
