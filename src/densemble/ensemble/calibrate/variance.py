"""Variance scaling: makes the variances of regression match the squared errors."""

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
"""Called for every pass over the held-out data: yields mean and variance ``(1, h, w)`` and target ``(h, w)``, NaN where
unknown, of each image."""

_LEAST = 1e-6
"""Lower limit of the floor, as a share of the mean squared error: without it, an error of a pixel on which all members
agree would have a likelihood of 0."""


@dataclass(frozen=True)
class VarianceScaling(Described):
    """Variance times a scale plus a floor: members with correlated errors underestimate the error by their spread.

    Attributes:
        scale: >= 0.
        floor: >= 0, in the squared unit of the target.

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
    """Fit scale and floor by maximum likelihood of the errors of all valid held-out pixels, as Gaussian errors.

    The likelihood is never lower than that of the same variance everywhere. If all variances are 0, the result is the
    mean squared error. After Laves et al. (2020), who fit a scale only; the floor covers errors common to all members.

    Args:
        images: yields means, variances and targets; see ``Estimates``. Memory holds one image.
        invalid_below: targets up to this value are invalid, as NaN is; ``None``: only NaN is.

    Raises:
        DataError: no pixel is valid.
    """
    from scipy.optimize import minimize

    error, spread = _means(images, invalid_below)
    if spread == 0 or error == 0:
        return VarianceScaling(0.0, error)

    def measure(shares: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        """Return the loss and its derivatives for scaled variance and floor as shares of the mean squared error."""
        sums, pixels = torch.zeros(3, dtype=torch.float64), 0
        for squares, variance in _valid(images, invalid_below):
            relative = variance / spread
            expected = relative * shares[0] + shares[1]
            ratio = squares / error / expected
            slope = (1 - ratio) / expected
            sums += torch.stack([(expected.log() + ratio).sum(), (slope * relative).sum(), slope.sum()])
            pixels += len(squares)
        loss, *slopes = (sums / pixels).tolist()
        return loss, np.array(slopes)

    starts = [np.array([0.0, 1.0]), np.array([0.5, 0.5])]
    start = min(starts, key=lambda shares: measure(shares)[0])
    optimum = minimize(measure, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (_LEAST, None)])
    scale, floor = (float(share) for share in optimum.x)
    return VarianceScaling(scale * error / spread, floor * error)


def _means(images: Estimates, invalid_below: float | None) -> tuple[float, float]:
    """Return the mean squared error and the mean variance."""
    sums, pixels = torch.zeros(2, dtype=torch.float64), 0
    for squares, variance in _valid(images, invalid_below):
        sums += torch.stack([squares.sum(), variance.sum()])
        pixels += len(squares)
    if not pixels:
        raise DataError("no held-out pixel is valid, so variances cannot be calibrated; check data.invalid_below")
    error, spread = (sums / pixels).tolist()
    return error, spread


def _valid(images: Estimates, invalid_below: float | None) -> Iterable[tuple[Tensor, Tensor]]:
    """Iterate over squared errors and variances of each image's valid pixels, float64 ``(N,)``."""
    for mean, variance, target in images():
        valid = is_valid(target, invalid_below)
        error = mean.squeeze(0)[valid].double() - target[valid].double()
        yield error.square(), variance.squeeze(0)[valid].double()
