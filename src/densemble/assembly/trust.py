"""How far a mixture can be trusted, measured on pictures that its calibration did not see: two halves, crossed."""

import math
from dataclasses import replace
from typing import Any

from densemble.assembly.calibrating import fit_calibration, member_temperatures
from densemble.assembly.choosing import halves
from densemble.assembly.mixture import Mixture
from densemble.assembly.options import calibrations_for
from densemble.heldout.trust import TRUSTED, Trust, reliability_table
from densemble.metrics import Metric

REPORTED = ("miou", "ece", "classwise_ece", "brier", "nll")
"""Metrics of the map that are told before and after calibration."""


def best_way(mixture: Mixture) -> str:
    """The way of calibrating by which each half of the pictures is likeliest, calibrated on the other half.

    A temperature per class learns more and, from few pictures, sometimes too much.
    """
    ways = calibrations_for(mixture.held.task)
    first, second = halves(mixture.held)
    if "vector" not in ways or not first:
        return ways[0]
    losses = {}
    for way in ("temperature", "vector"):
        parts = [fit_calibration(mixture.only(seen), way).only(unseen) for seen, unseen in crossed(first, second)]
        value = _measured(parts)[1].compute()["nll"]
        losses[way] = float(value) if isinstance(value, float) else math.inf
    return min(losses, key=lambda way: losses[way])


def crossed(first: list[int], second: list[int]) -> tuple[tuple[list[int], list[int]], tuple[list[int], list[int]]]:
    """(pictures to learn from, pictures to measure on), both ways."""
    return (first, second), (second, first)


def trust(mixture: Mixture, way: str) -> dict[str, Any]:
    """The parts ``calibration`` and ``risk_coverage`` of an analysis, as far as the task has them.

    Args:
        mixture: rule and shares; its temperatures and calibration are fitted again on each half, and measured on the
            other.
        way: of calibrating.
    """
    task = mixture.held.task
    if task.target_kind not in TRUSTED:
        return {}
    plain = replace(mixture, held=mixture.held.tempered((1.0,) * len(mixture.shares)), calibration=None)
    first, second = halves(plain.held)
    if not first:
        return {}
    calibrated = [_calibrated(plain.only(seen), way).only(unseen) for seen, unseen in crossed(first, second)]
    (was, before), (now, after) = _measured([plain]), _measured(calibrated)
    found = {"risk_coverage": {**now["risk_coverage"], "random": now["risk_coverage"]["risk"]}}
    if "interval_coverage" in now:
        one, two = was["interval_coverage"], now["interval_coverage"]
        rows = zip(one["levels"], one["coverage"] or [], two["coverage"] or [], strict=False)
        coverage = [{"nominal": level, "before": old, "after": new} for level, old, new in rows]
        return {**found, "calibration": {"coverage": coverage}}
    return {**found, "calibration": {"before": _reliability(before), "after": _reliability(after)}}


def _calibrated(plain: Mixture, way: str) -> Mixture:
    return fit_calibration(replace(plain, held=member_temperatures(plain.held, way)), way)


def _measured(mixtures: list[Mixture]) -> tuple[dict[str, Any], Metric]:
    task = mixtures[0].held.task
    extra, metric = Trust(task), task.metrics()
    for mixture in mixtures:
        for maps, (target, _) in mixture.held:
            prediction = mixture.predict(maps)
            metric.update(prediction.mean[0], target)
            extra.update(prediction, target)
    return extra.compute(), metric


def _reliability(metric: Metric) -> dict[str, Any]:
    values = metric.compute()
    found: dict[str, Any] = {name: values[name] for name in REPORTED if name in values}
    return {**found, "table": reliability_table(metric)}
