"""Variance scaling: calibrates the variances of regression, so that they match the squared errors."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.described import Described
from densemble.errors import DataError, UsageError
from densemble.metrics.metric import is_valid

Estimates = Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]]
"""Function that iterates once over the held-out images. For each image it yields mean and variance ``(1, h, w)``, and
the target ``(h, w)``, NaN at unknown pixels."""

_LEAST = 1e-6
"""Smallest floor, as a share of the mean squared error. With a floor of 0, the likelihood would be 0 if the members
agree exactly on a pixel but are wrong."""


@dataclass(frozen=True)
class VarianceScaling(Described):
    """Expected squared error = scale * variance over the members + floor.

    The variance alone is too small if the errors of the members are correlated.

    Attributes:
        scale: factor of the variance, >= 0.
        floor: constant added at every pixel, >= 0, in the squared unit of the target.

    Raises:
        UsageError: a number is negative or not finite.
    """

    scale: float
    floor: float

    kind = "variance"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.floor) and min(self.scale, self.floor) >= 0):
            raise UsageError(f"scale {self.scale} and floor {self.floor} of a variance must be finite and >= 0")

    def apply(self, variance: Tensor) -> Tensor:
        """Convert variances over the members, of any shape, to expected squared errors."""
        return variance * self.scale + self.floor


def fit_variance_scaling(images: Estimates, invalid_below: float | None = None) -> VarianceScaling:
    """Fit scale and floor by maximum likelihood on all valid held-out pixels, with errors assumed to be Gaussian.

    The likelihood is never lower than with one constant variance for all pixels. If all variances are 0, the scale is 0
    and the floor is the mean squared error. Laves et al. (2020) fit only a scale; the floor is added here for errors
    that all members share.

    Args:
        images: yields means, variances and targets; see ``Estimates``. One image at a time is kept in memory.
        invalid_below: target values up to this one are invalid, like NaN; ``None``: only NaN is invalid.

    Raises:
        DataError: no pixel is valid.
    """
    from scipy.optimize import minimize

    mean_square, mean_variance = _means(images, invalid_below)
    if mean_variance == 0 or mean_square == 0:
        return VarianceScaling(0.0, mean_square)

    def loss_and_gradient(shares: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        """Return the loss and its gradient for two shares of the mean squared error: mean scaled variance and floor."""
        sums, pixels = torch.zeros(3, dtype=torch.float64), 0
        for squares, variance in _valid(images, invalid_below):
            relative = variance / mean_variance
            expected = relative * shares[0] + shares[1]
            ratio = squares / mean_square / expected
            slope = (1 - ratio) / expected
            sums += torch.stack([(expected.log() + ratio).sum(), (slope * relative).sum(), slope.sum()])
            pixels += len(squares)
        loss, *gradient = (sums / pixels).tolist()
        return loss, np.array(gradient)

    starts = [np.array([0.0, 1.0]), np.array([0.5, 0.5])]
    start = min(starts, key=lambda shares: loss_and_gradient(shares)[0])
    optimum = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (_LEAST, None)])
    scale, floor = (float(share) for share in optimum.x)
    return VarianceScaling(scale * mean_square / mean_variance, floor * mean_square)


def _means(images: Estimates, invalid_below: float | None) -> tuple[float, float]:
    """Return the mean squared error and the mean variance."""
    sums, pixels = torch.zeros(2, dtype=torch.float64), 0
    for squares, variance in _valid(images, invalid_below):
        sums += torch.stack([squares.sum(), variance.sum()])
        pixels += len(squares)
    if not pixels:
        raise DataError("no held-out pixel is valid, so variances cannot be calibrated; check data.invalid_below")
    mean_square, mean_variance = (sums / pixels).tolist()
    return mean_square, mean_variance


def _valid(images: Estimates, invalid_below: float | None) -> Iterable[tuple[Tensor, Tensor]]:
    """Iterate over squared errors and variances of each image's valid pixels, float64 ``(N,)``."""
    for mean, variance, target in images():
        valid = is_valid(target, invalid_below)
        error = mean.squeeze(0)[valid].double() - target[valid].double()
        yield error.square(), variance.squeeze(0)[valid].double()
