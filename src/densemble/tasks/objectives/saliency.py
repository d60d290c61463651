"""Objectives of saliency, means over images; the definitions are those of :mod:`densemble.metrics.saliency`."""

from collections.abc import Callable

import torch
from torch import Tensor

from densemble.metrics.saliency import auc_judd, correlations, divergences, scanpaths, similarities
from densemble.tasks.objectives.base import Objective, Statistics, counted, mean, nothing


def saliency_objectives() -> tuple[Objective, ...]:
    """``cc sim kld nss auc_judd``; the last two over the images that have fixations."""
    return (
        Objective("cc", True, _of_targets(correlations), mean),
        Objective("sim", True, _of_targets(similarities), mean),
        Objective("kld", False, _of_targets(divergences), mean),
        Objective("nss", True, _of_fixations(_scanpaths), mean),
        Objective("auc_judd", True, _of_fixations(_areas), mean),
    )


def _of_targets(metric: Callable[[Tensor, Tensor], Tensor]) -> Statistics:
    """Statistics of a metric of maps ``(M, N)`` and a target ``(N,)``; a target of zeros is left out."""

    def statistics(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
        if target.sum() <= 0:
            return nothing(maps)
        return counted(metric(maps.double().flatten(1), target.double().flatten()), 1)

    return statistics


def _of_fixations(metric: Callable[[Tensor, Tensor], Tensor]) -> Statistics:
    """Statistics of a metric of maps ``(M, 1, H, W)`` and fixations ``(H, W)``; an image without any is left out."""

    def statistics(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
        if points is None or not points.any():
            return nothing(maps)
        return counted(metric(maps.double(), points), 1)

    return statistics


def _scanpaths(maps: Tensor, points: Tensor) -> Tensor:
    return scanpaths(maps.flatten(1), points.flatten())


def _areas(maps: Tensor, points: Tensor) -> Tensor:
    return torch.tensor([auc_judd(one[0], points) for one in maps], dtype=torch.float64)
