"""Guarantees of an ensemble, fitted and checked on served maps of images that no other fit used."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densemble.ensemble.calibrate import Calibration, VarianceScaling
from densemble.ensemble.combination import Combination
from densemble.ensemble.guarantee import Guarantee, fit_interval, fit_risk_control, fit_set
from densemble.errors import DataError
from densemble.evaluation.trust import Trust
from densemble.selection.folds import alternating_halves
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.options import Options
from densemble.shapes import size_of


def fit_guarantee(held: HeldOut, combination: Combination, options: Options) -> Guarantee | None:
    """Fit the requested guarantee.

    Args:
        held: served maps of the members and targets at full size, of images that no other fit used.
        combination: combination of the members.
        options: guarantee, level and confidence.

    Returns:
        The guarantee; ``None`` if none is requested.

    Raises:
        DataError: too few images.
    """
    task = held.task
    match options.guarantee:
        case "set":
            return fit_set(lambda: held.combined(combination), task, options.level)
        case "risk":
            return fit_risk_control(lambda: held.combined(combination), task, options.level, options.confidence)
        case "interval":
            floor = interval_floor(combination.calibration)
            return fit_interval(lambda: _with_spread(held, combination, floor), task, options.level, floor)
    return None


def check_guarantee(
    held: HeldOut, combination: Combination, options: Options, groups: list[str | None] | None = None
) -> dict[str, Any]:
    """Measure the coverage of the guarantee: fit it on each half of the images and measure it on the other half.

    The halves consist of alternating contiguous blocks, or of groups. The result is empty if the halves are too small.
    """
    first, second = alternating_halves(held.images, groups)
    trust: Trust | None = None
    for seen, unseen in ((first, second), (second, first)):
        try:
            fitted = fit_guarantee(held.only(seen), combination, options)
        except DataError:
            continue
        trust = trust or Trust(held.task, fitted)
        guaranteed = replace(combination, guarantee=fitted)
        for maps, (target, _) in held.only(unseen):
            size = size_of(target)
            trust.update(guaranteed.predict_at(maps[:, None], size), target, fitted)
    values = {} if trust is None else trust.compute().get("guarantee", {})
    keys = ("promised", "coverage", "low", "high", "mean_size", "checked_on")
    return {key: values[key] for key in keys if key in values}


def interval_floor(calibration: Calibration | None) -> float | None:
    """Return the constant to add to the members' variance so that intervals are proportional to calibrated deviations.

    ``None`` without variance scaling, or if its scale or its constant is 0.
    """
    if not isinstance(calibration, VarianceScaling) or calibration.scale <= 0 or calibration.floor <= 0:
        return None
    return calibration.floor / calibration.scale


def _with_spread(held: HeldOut, combination: Combination, floor: float | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield values at target size, with a floor also the members' variance, ``(1 or 2, H, W)``, and the target."""
    plain = replace(combination, calibration=None)
    for maps, (target, _) in held:
        prediction = plain.predict_at(maps[:, None], size_of(target))
        values = prediction.mean if floor is None else torch.cat([prediction.mean, prediction.spread()], dim=1)
        yield values[0], target
