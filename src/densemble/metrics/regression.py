"""Regression (depth) metrics over all valid pixels of the set; every pixel weighs the same (Eigen et al. 2014)."""

import torch
from torch import Tensor

from densemble.metrics.base import MetricValues


class RegressionMetrics:
    """``mae rmse absrel delta1``; ``absrel`` and ``delta1`` over positive targets, ``None`` where there are none.

    Args:
        invalid_below: targets up to this value are invalid, as NaN is; ``None``: only NaN is.
    """

    def __init__(self, invalid_below: float | None = 0.0) -> None:
        self._invalid_below = invalid_below
        self._pixels = 0
        self._positive = 0
        self._absolute = self._squared = self._relative = self._near = 0.0

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: values ``(1, H, W)``, targets ``(H, W)`` in the same unit."""
        p, t = prediction.squeeze(0).double(), target.double()
        valid = torch.isfinite(t)
        if self._invalid_below is not None:
            valid &= t > self._invalid_below
        p, t = p[valid], t[valid]
        error = (p - t).abs()
        self._pixels += t.numel()
        self._absolute += float(error.sum())
        self._squared += float((error**2).sum())
        positive = t > 0
        p, t, error = p[positive], t[positive], error[positive]
        self._positive += t.numel()
        self._relative += float((error / t).sum())
        ratio = torch.where(p > 0, torch.maximum(p / t, t / p), torch.inf)
        self._near += float((ratio < 1.25).sum())

    def compute(self) -> MetricValues:
        """The metrics; all ``None`` where no pixel is valid."""
        if not self._pixels:
            return {"mae": None, "rmse": None, "absrel": None, "delta1": None}
        some = self._positive > 0
        return {
            "mae": self._absolute / self._pixels,
            "rmse": (self._squared / self._pixels) ** 0.5,
            "absrel": self._relative / self._positive if some else None,
            "delta1": self._near / self._positive if some else None,
        }
