"""Variances of regression that are as large as the squared errors."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.errors import DataError, UsageError

Estimates = Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]]
"""Called again for every pass over the held-out data: gives mean and variance ``(1, h, w)`` and the target ``(h, w)``,
NaN where unknown, image by image."""

_LEAST = 1e-6
"""Lowest floor, as a share of the mean squared error: pixels on which all members agree would be impossible else."""


@dataclass(frozen=True)
class VarianceScaling:
    """Variance times a scale plus a floor: members that err alike know less than their spread says.

    Attributes:
        scale: >= 0.
        floor: >= 0, in the target's unit squared.

    Raises:
        UsageError: a number is negative or not finite.
    """

    scale: float
    floor: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.floor) and min(self.scale, self.floor) >= 0):
            raise UsageError(f"scale {self.scale} and floor {self.floor} of a variance must be finite and >= 0")

    def apply(self, variance: Tensor) -> Tensor:
        """Variances over the members, of any shape -> variances of the error."""
        return variance * self.scale + self.floor

    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_calibration` builds the same calibration."""
        return {"kind": "variance", "scale": self.scale, "floor": self.floor}


def make_variance_scaling(values: dict[str, Any]) -> VarianceScaling:
    """From the plain values of ``describe``."""
    return VarianceScaling(float(values["scale"]), float(values["floor"]))


def fit_variance_scaling(images: Estimates, invalid_below: float | None = None) -> VarianceScaling:
    """The scale and floor that make the errors of all valid held-out pixels likeliest as Gaussian ones.

    Never less likely than the same variance everywhere, which is what is found where all variances are 0: the mean
    squared error. After Laves et al. (2020), who scale, with a floor for what no member sees.

    Args:
        images: gives means, variances and targets; see ``Estimates``. Memory holds one image.
        invalid_below: targets up to this value are invalid, as NaN is; ``None``: only NaN is.

    Raises:
        DataError: no pixel is valid.
    """
    from scipy.optimize import minimize

    error, spread = _means(images, invalid_below)
    if spread == 0 or error == 0:
        return VarianceScaling(0.0, error)

    def measure(shares: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        """The loss, and its derivatives, where scaled variance and floor have these shares of the mean error."""
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
    found = minimize(measure, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (_LEAST, None)])
    scale, floor = (float(share) for share in found.x)
    return VarianceScaling(scale * error / spread, floor * error)


def _means(images: Estimates, invalid_below: float | None) -> tuple[float, float]:
    """Mean squared error and mean variance."""
    sums, pixels = torch.zeros(2, dtype=torch.float64), 0
    for squares, variance in _valid(images, invalid_below):
        sums += torch.stack([squares.sum(), variance.sum()])
        pixels += len(squares)
    if not pixels:
        raise DataError("no held-out pixel is valid: variances cannot be calibrated; look at data.invalid_below")
    error, spread = (sums / pixels).tolist()
    return error, spread


def _valid(images: Estimates, invalid_below: float | None) -> Iterable[tuple[Tensor, Tensor]]:
    """Squared errors and variances of each image's valid pixels, float64 ``(N,)``."""
    for mean, variance, target in images():
        valid = torch.isfinite(target)
        if invalid_below is not None:
            valid &= target > invalid_below
        error = mean.squeeze(0)[valid].double() - target[valid].double()
        yield error.square(), variance.squeeze(0)[valid].double()
