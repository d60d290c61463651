"""Guarantees of an ensemble, fitted and checked on maps as served, on images that nothing else has seen."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densemble.assembly.folds import alternating_halves
from densemble.assembly.mixture import Mixture
from densemble.assembly.options import Options
from densemble.ensemble.calibrate import VarianceScaling
from densemble.ensemble.guarantee import ConformalInterval, Guarantee, fit_interval, fit_risk_control, fit_set
from densemble.ensemble.prediction import Prediction
from densemble.errors import DataError
from densemble.heldout.trust import Trust
from densemble.shapes import size_of


def fit_guarantee(mixture: Mixture, options: Options) -> Guarantee | None:
    """The guarantee that was asked for, fitted on the mixture's images.

    Args:
        mixture: over maps as served and targets at their own size, of images that nothing else was fitted on.
        options: kind, level and confidence.

    Raises:
        DataError: too few images.
    """
    task = mixture.held.task
    match options.promise:
        case "set":
            return fit_set(mixture.maps, task, options.level)
        case "risk":
            return fit_risk_control(mixture.maps, task, options.level, options.confidence)
        case "interval":
            floor = interval_floor(mixture)
            return fit_interval(lambda: _with_spread(mixture, floor), task, options.level, floor)
    return None


def check_guarantee(mixture: Mixture, options: Options, groups: list[str | None] | None = None) -> dict[str, Any]:
    """Coverage of the same guarantee fitted on one half of the images and measured on the other, both ways round.

    The halves are made of alternating contiguous blocks, or of groups. Empty where a half is too small for a fit.
    """
    first, second = alternating_halves(mixture.held.pictures, groups)
    trust: Trust | None = None
    for seen, unseen in ((first, second), (second, first)):
        try:
            fitted = fit_guarantee(mixture.only(seen), options)
        except DataError:
            continue
        trust = trust or Trust(mixture.held.task, fitted)
        for maps, (target, _) in mixture.only(unseen).held:
            trust.update(with_bounds(mixture, maps, target, fitted), target, fitted)
    found = {} if trust is None else trust.compute().get("guarantee", {})
    keys = ("promised", "coverage", "low", "high", "mean_size", "checked_on")
    return {key: found[key] for key in keys if key in found}


def with_bounds(mixture: Mixture, maps: Tensor, target: Tensor, guarantee: Guarantee | None) -> Prediction:
    """The prediction at the target's size, with the ends of a guaranteed interval."""
    size = size_of(target)
    prediction = mixture.predict(maps, size)
    if not isinstance(guarantee, ConformalInterval):
        return prediction
    values = prediction.mean
    if guarantee.floor is not None:  # the interval follows the members' variance, not the calibrated one
        values = torch.cat([values, replace(mixture, calibration=None).predict(maps, size).spread()], dim=1)
    lower, upper = guarantee.apply(values)
    return replace(prediction, lower=lower, upper=upper)


def interval_floor(mixture: Mixture) -> float | None:
    """What is added to the members' variance so that intervals are as wide as calibrated deviations, up to a factor."""
    scaling = mixture.calibration
    if not isinstance(scaling, VarianceScaling) or scaling.scale <= 0 or scaling.floor <= 0:
        return None
    return scaling.floor / scaling.scale


def _with_spread(mixture: Mixture, floor: float | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Values at the target's size, with a floor also the members' variance, ``(1 or 2, H, W)``, and the target."""
    plain = replace(mixture, calibration=None)
    for maps, (target, _) in mixture.held:
        prediction = plain.predict(maps, size_of(target))
        values = prediction.mean if floor is None else torch.cat([prediction.mean, prediction.spread()], dim=1)
        yield values[0], target
