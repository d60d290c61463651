"""Guarantees of an ensemble, fitted and checked on maps as served, on images that nothing else has seen."""

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
    """The guarantee that was asked for.

    Args:
        held: the members' maps as served and targets at their own size, of images that nothing else was fitted on.
        combination: of the members.
        options: kind, level and confidence.

    Raises:
        DataError: too few images.
    """
    task = held.task
    match options.promise:
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
    """Coverage of the same guarantee fitted on one half of the images and measured on the other, both ways round.

    The halves are made of alternating contiguous blocks, or of groups. Empty where a half is too small for a fit.
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
    found = {} if trust is None else trust.compute().get("guarantee", {})
    keys = ("promised", "coverage", "low", "high", "mean_size", "checked_on")
    return {key: found[key] for key in keys if key in found}


def interval_floor(calibration: Calibration | None) -> float | None:
    """What is added to the members' variance so that intervals are as wide as calibrated deviations, up to a factor."""
    if not isinstance(calibration, VarianceScaling) or calibration.scale <= 0 or calibration.floor <= 0:
        return None
    return calibration.floor / calibration.scale


def _with_spread(held: HeldOut, combination: Combination, floor: float | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Values at the target's size, with a floor also the members' variance, ``(1 or 2, H, W)``, and the target."""
    plain = replace(combination, calibration=None)
    for maps, (target, _) in held:
        prediction = plain.predict_at(maps[:, None], size_of(target))
        values = prediction.mean if floor is None else torch.cat([prediction.mean, prediction.spread()], dim=1)
        yield values[0], target
