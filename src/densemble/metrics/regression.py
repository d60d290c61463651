"""Regression and depth metrics over all valid pixels; every pixel has the same weight (Eigen et al. 2014)."""

from functools import partial

import torch
from torch import Tensor

from densemble.metrics.metric import (
    Metric,
    Objective,
    ScoredImage,
    columns,
    counted,
    is_valid,
    mean,
    no_statistics,
    ratio,
    root_mean,
    true_indices,
)

FACTOR = 1.25

Pairs = tuple[Tensor, Tensor]
"""Predictions ``(M, N)`` and targets ``(N,)``, float64."""


class RegressionMetrics(Metric):
    """``mae rmse absrel delta1 delta2 delta3 silog``; all except ``mae`` and ``rmse`` are over positive targets only.

    ``deltaN`` is the share of pixels whose prediction and target differ by less than a factor of 1.25^N. ``silog`` is
    100 times the standard deviation of the log ratio within an image, as a mean over images as in KITTI (Uhrig et al.
    2017); ``None`` if a prediction is not positive, because its logarithm is undefined. Metrics without a pixel are
    ``None``.

    Args:
        invalid_below: targets ``(H, W)`` up to this value are invalid, as NaN is; ``None``: only NaN is.
    """

    def __init__(self, invalid_below: float | None = 0.0) -> None:
        self._invalid_below = invalid_below
        near = [Objective(f"delta{n}", True, partial(self._near, FACTOR**n), mean) for n in (1, 2, 3)]
        super().__init__(
            Objective("mae", False, self._absolute, mean),
            Objective("rmse", False, self._squared, root_mean),
            Objective("absrel", False, self._relative, mean),
            *near,
            Objective("silog", False, self._log_spread, _mean_spread),
        )

    def _valid(self, image: ScoredImage) -> Pairs:
        return _pairs(image, self._invalid_below)

    def _positive(self, image: ScoredImage) -> Pairs:
        all_positive = self._invalid_below is not None and self._invalid_below >= 0
        return image.once(self._valid) if all_positive else _pairs(image, 0.0)

    def _ratios(self, image: ScoredImage) -> Tensor:
        """Return prediction / target where the target is positive."""
        p, t = image.once(self._positive)
        return p / t

    def _factors(self, image: ScoredImage) -> Tensor:
        """Return the factor by which prediction and target differ, where both are positive."""
        p, t = image.once(self._positive)
        return torch.maximum(image.once(self._ratios), t / p)

    def _absolute(self, image: ScoredImage) -> Tensor:
        p, t = image.once(self._valid)
        return counted((p - t).abs().sum(1), len(t))

    def _squared(self, image: ScoredImage) -> Tensor:
        p, t = image.once(self._valid)
        return counted((p - t).square().sum(1), len(t))

    def _relative(self, image: ScoredImage) -> Tensor:
        p, t = image.once(self._positive)
        return counted(((p - t).abs() / t).sum(1), len(t))

    def _near(self, factor: float, image: ScoredImage) -> Tensor:
        p, t = image.once(self._positive)
        return counted(((p > 0) & (image.once(self._factors) < factor)).sum(1), len(t))

    def _log_spread(self, image: ScoredImage) -> Tensor:
        """Return the standard deviation of the log ratio, the count 1, and whether it is undefined, ``(M, 3)``."""
        p, t = image.once(self._positive)
        if not len(t):
            return torch.cat([no_statistics(image), torch.zeros(len(p), 1)], dim=1)
        defined = (p > 0).all(1)
        spread = image.once(self._ratios).log().std(1, correction=0).where(defined, 0.0)
        return torch.cat([counted(spread, 1), (~defined).double()[:, None]], dim=1)


def _pairs(image: ScoredImage, above: float | None) -> Pairs:
    """Return predictions and targets where the target is valid and above a limit."""
    target = image.target.double().flatten()
    pixels = true_indices(is_valid(target, above))
    return columns(image.maps.flatten(1), pixels).double(), target.index_select(0, pixels)


def _mean_spread(sums: Tensor) -> Tensor:
    return torch.where(sums[..., 2] > 0, torch.nan, 100 * ratio(sums[..., 0], sums[..., 1]))
