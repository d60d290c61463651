"""Objectives of saliency, means over pictures (Bylinskii et al. 2019); see :mod:`densemble.metrics.saliency`."""

import torch
from torch import Tensor

from densemble.metrics.saliency import EPSILON, auc_judd
from densemble.tasks.objectives.base import Objective, counted, mean, nothing, ratio


def saliency_objectives() -> tuple[Objective, ...]:
    """``cc sim kld nss auc_judd``; the last two over the pictures that have fixations."""
    return (
        Objective("cc", True, _correlations, mean),
        Objective("sim", True, _similarities, mean),
        Objective("kld", False, _divergences, mean),
        Objective("nss", True, _scanpaths, mean),
        Objective("auc_judd", True, _areas, mean),
    )


def _correlations(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    if target.sum() <= 0:
        return nothing(maps)
    p, q = maps.double().flatten(1), target.double().flatten()
    p, q = p - p.mean(1, keepdim=True), q - q.mean()
    norm = p.norm(dim=1) * q.norm()
    return counted(torch.where(norm > 0, p @ q / norm, 0.0), 1)


def _similarities(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    if target.sum() <= 0:
        return nothing(maps)
    return counted(torch.minimum(_distributions(maps), _distributions(target[None])).sum(1), 1)


def _divergences(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    if target.sum() <= 0:
        return nothing(maps)
    p, q = _distributions(maps), _distributions(target[None])
    return counted((q * torch.log(EPSILON + q / (p + EPSILON))).sum(1), 1)


def _scanpaths(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    if points is None or not points.any():
        return nothing(maps)
    p = maps.double().flatten(1)
    heights = p[:, points.flatten()].mean(1) - p.mean(1)
    spread = p.std(1, correction=0)
    return counted(torch.where(spread > 0, heights / spread, 0.0), 1)


def _areas(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    if points is None or not points.any():
        return nothing(maps)
    return counted(torch.tensor([auc_judd(one[0], points) for one in maps.double()], dtype=torch.float64), 1)


def _distributions(maps: Tensor) -> Tensor:
    """Maps ``(M, ...)`` of sum 1, float64 ``(M, N)``; one that is 0 everywhere is even."""
    values = maps.double().flatten(1)
    return ratio(values, values.sum(1, keepdim=True)).nan_to_num(nan=1 / values.shape[1])
