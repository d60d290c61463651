"""Calibration and guarantees of a mixture of kept predictions, fitted on its pictures."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from densemble.assembly.mixture import Mixture
from densemble.assembly.options import calibrations_for
from densemble.ensemble.calibrate import (
    Calibration,
    Temperature,
    fit_temperature,
    fit_variance_scaling,
    fit_vector_scaling,
)
from densemble.heldout.predictions import HeldOut
from densemble.tasks import RegressionTask, SegmentationTask, Task

Report = Callable[[str], None]
IGNORED = 255


def _ignored(task: Task) -> int:
    return task.ignore_index if isinstance(task, SegmentationTask) else IGNORED


def _invalid_below(task: Task) -> float | None:
    return task.invalid_below if isinstance(task, RegressionTask) else None


def member_temperatures(held: HeldOut, way: str, report: Report = lambda line: None) -> HeldOut:
    """The candidates with temperatures of their own, fitted on all pixels of the pictures; one pass each per step.

    Each by itself: what their mixture still lacks (Rahaman & Thiery 2021) is left to the ensemble's own calibration.

    Args:
        held: candidates and pictures.
        way: ``none`` leaves them as they are, and so do tasks without probabilities of something that was observed.
        report: is told of temperatures at their bounds.
    """
    task, found = held.task, []
    if way == "none" or "temperature" not in calibrations_for(task):
        return held
    plain = held.tempered((1.0,) * len(held.names))
    for name in held.names:
        own = plain.of([name])

        def pictures(own: HeldOut = own) -> Iterator[tuple[Tensor, Tensor]]:
            return ((maps[0], target) for maps, (target, _) in own)

        def say(line: str, of: str = name) -> None:
            report(f"{of}: {line}")

        found.append(fit_temperature(pictures, task.distribution, _ignored(task), say))
    return held.tempered(found)


def fit_calibration(mixture: Mixture, way: str, report: Report = lambda line: None) -> Mixture:
    """The mixture with a calibration of its own, fitted on its pictures."""
    plain = replace(mixture, calibration=None)
    task = mixture.held.task
    found: Calibration | None = None
    if way == "temperature":
        value = fit_temperature(plain.maps, task.distribution, _ignored(task), report)
        found = None if value == 1 else Temperature(value, task.distribution)
    elif way == "vector":
        found = fit_vector_scaling(plain.maps, task.distribution, _ignored(task), report)
    elif way == "variance":

        def estimates() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for maps, (target, _) in plain.held:
                yield plain.join(maps)[0], plain.spread(maps)[0], target

        found = fit_variance_scaling(estimates, _invalid_below(task))
    return replace(plain, calibration=found)
