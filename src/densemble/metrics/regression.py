"""Regression (depth) metrics over all valid pixels of the set; every pixel weighs the same (Eigen et al. 2014)."""

import torch
from torch import Tensor

from densemble.metrics.base import MetricValues

FACTOR = 1.25
_KEYS = ("mae", "rmse", "absrel", "delta1", "delta2", "delta3", "silog")


class RegressionMetrics:
    """``mae rmse absrel delta1 delta2 delta3 silog``; all but the first two over positive targets, else ``None``.

    ``deltaN`` is the share of pixels where prediction and target differ by less than a factor of 1.25^N. ``silog`` is
    100 times the standard deviation of the log ratio within a picture, a mean over pictures as in KITTI (Uhrig et al.
    2017); ``None`` where a prediction is not positive, for it has no logarithm.

    Args:
        invalid_below: targets up to this value are invalid, as NaN is; ``None``: only NaN is.
    """

    def __init__(self, invalid_below: float | None = 0.0) -> None:
        self._invalid_below = invalid_below
        self._pixels = self._positive = self._pictures = 0
        self._absolute = self._squared = self._relative = self._log_spread = 0.0
        self._near = [0, 0, 0]

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
        if positive.any():
            self._add_ratios(p[positive], t[positive])

    def _add_ratios(self, p: Tensor, t: Tensor) -> None:
        self._positive += t.numel()
        self._relative += float(((p - t).abs() / t).sum())
        ratio = torch.where(p > 0, torch.maximum(p / t, t / p), torch.inf)
        self._near = [near + int((ratio < FACTOR ** (n + 1)).sum()) for n, near in enumerate(self._near)]
        self._pictures += 1
        defined = bool((p > 0).all())
        self._log_spread += float((p / t).log().std(correction=0)) if defined else torch.nan

    def compute(self) -> MetricValues:
        """The metrics; all ``None`` where no pixel is valid."""
        found: MetricValues = dict.fromkeys(_KEYS)
        if self._pixels:
            found |= {"mae": self._absolute / self._pixels, "rmse": (self._squared / self._pixels) ** 0.5}
        if self._positive:
            found["absrel"] = self._relative / self._positive
            found |= {f"delta{n}": near / self._positive for n, near in enumerate(self._near, start=1)}
            spread = 100 * self._log_spread / self._pictures
            found["silog"] = spread if spread == spread else None
        return found
