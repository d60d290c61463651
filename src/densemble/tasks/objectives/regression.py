"""Objectives of regression and depth over valid pixels (Eigen et al. 2014); see :mod:`densemble.metrics.regression`."""

from functools import partial

import torch
from torch import Tensor

from densemble.metrics.regression import FACTOR
from densemble.tasks.objectives.base import Objective, counted, mean, nothing, ratio, root_mean


def regression_objectives(invalid_below: float | None) -> tuple[Objective, ...]:
    """``mae rmse absrel delta1 delta2 delta3 silog``; all but the first two over positive targets."""
    near = [Objective(f"delta{n}", True, partial(_near, FACTOR**n, invalid_below), mean) for n in (1, 2, 3)]
    return (
        Objective("mae", False, partial(_absolute, invalid_below), mean),
        Objective("rmse", False, partial(_squared, invalid_below), root_mean),
        Objective("absrel", False, partial(_relative, invalid_below), mean),
        *near,
        Objective("silog", False, partial(_log_spread, invalid_below), _mean_spread),
    )


def _pairs(invalid_below: float | None, maps: Tensor, target: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """Predictions ``(M, N)`` and targets ``(N,)`` where valid, float64."""
    wanted = target.double().flatten()
    valid = torch.isfinite(wanted)
    if invalid_below is not None:
        valid &= wanted > invalid_below
    if positive:
        valid &= wanted > 0
    return maps.flatten(1)[:, valid].double(), wanted[valid]


def _absolute(invalid_below: float | None, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    p, t = _pairs(invalid_below, maps, target, positive=False)
    return counted((p - t).abs().sum(1), len(t))


def _squared(invalid_below: float | None, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    p, t = _pairs(invalid_below, maps, target, positive=False)
    return counted((p - t).square().sum(1), len(t))


def _relative(invalid_below: float | None, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    p, t = _pairs(invalid_below, maps, target, positive=True)
    return counted(((p - t).abs() / t).sum(1), len(t))


def _near(
    factor: float, invalid_below: float | None, maps: Tensor, target: Tensor, points: Tensor | None = None
) -> Tensor:
    p, t = _pairs(invalid_below, maps, target, positive=True)
    return counted(((p > 0) & (torch.maximum(p / t, t / p) < factor)).sum(1), len(t))


def _log_spread(invalid_below: float | None, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    """Standard deviation of the log ratio, 1 for the picture, and whether it is undefined, ``(M, 3)``."""
    p, t = _pairs(invalid_below, maps, target, positive=True)
    if not len(t):
        return torch.cat([nothing(maps), torch.zeros(len(maps), 1)], dim=1)
    defined = (p > 0).all(1)
    spread = (p / t).log().std(1, correction=0).where(defined, 0.0)
    return torch.cat([counted(spread, 1), (~defined).double()[:, None]], dim=1)


def _mean_spread(sums: Tensor) -> Tensor:
    return torch.where(sums[..., 2] > 0, torch.nan, 100 * ratio(sums[..., 0], sums[..., 1]))
