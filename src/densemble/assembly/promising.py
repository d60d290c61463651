"""Guarantees of a mixture of kept predictions, fitted on pictures that nothing else has seen."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densemble.assembly.mixture import Mixture
from densemble.assembly.options import Options
from densemble.ensemble.calibrate import VarianceScaling
from densemble.ensemble.guarantee import ConformalInterval, Guarantee, fit_interval, fit_risk_control, fit_set
from densemble.ensemble.prediction import Prediction
from densemble.errors import DataError
from densemble.heldout.trust import Trust


def fit_promise(mixture: Mixture, options: Options) -> Guarantee | None:
    """The guarantee that was asked for, fitted on the mixture's pictures, which nothing else may have seen.

    Raises:
        DataError: too few pictures for what is to be promised.
    """
    task = mixture.held.task
    match options.promise:
        case "set":
            return fit_set(mixture.maps, task, options.level)
        case "risk":
            return fit_risk_control(mixture.maps, task, options.level, options.confidence)
        case "interval":
            floor = interval_floor(mixture)
            return fit_interval(lambda: with_spread(mixture, floor), task, options.level, floor)
    return None


def check_promise(mixture: Mixture, options: Options) -> dict[str, Any]:
    """What the same guarantee holds of every second picture, fitted on the others; nothing where they are too few."""
    pictures = mixture.held.pictures
    try:
        fitted = fit_promise(mixture.only(pictures[::2]), options)
    except DataError:
        return {}
    extra = Trust(mixture.held.task, fitted)
    for maps, (target, _) in mixture.only(pictures[1::2]).held:
        extra.update(_promised(mixture, maps, fitted), target)
    found = extra.compute().get("guarantee", {})
    return {
        key: found[key] for key in ("promised", "coverage", "low", "high", "mean_size", "checked_on") if key in found
    }


def _promised(mixture: Mixture, maps: Tensor, guarantee: Guarantee | None) -> Prediction:
    prediction = mixture.predict(maps)
    if not isinstance(guarantee, ConformalInterval):
        return prediction
    values = prediction.mean
    ends = guarantee.apply(values if guarantee.floor is None else torch.cat([values, mixture.spread(maps)], dim=1))
    return replace(prediction, lower=ends[0], upper=ends[1])


def interval_floor(mixture: Mixture) -> float | None:
    """What is added to the members' variance so that intervals are as wide as calibrated deviations, up to a factor."""
    scaling = mixture.calibration
    if not isinstance(scaling, VarianceScaling) or scaling.scale <= 0 or scaling.floor <= 0:
        return None
    return scaling.floor / scaling.scale


def with_spread(mixture: Mixture, floor: float | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Values, and where intervals follow it the members' variance, ``(1 or 2, h, w)``, beside the targets."""
    for maps, (target, _) in mixture.held:
        joined = mixture.join(maps)
        yield (joined if floor is None else torch.cat([joined, mixture.spread(maps)], dim=1))[0], target
