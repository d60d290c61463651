"""Objectives of point maps; see :mod:`densemble.metrics.heatmap`."""

import torch
from torch import Tensor

from densemble.metrics.heatmap import REACH, peaks_of
from densemble.tasks.objectives.base import Objective, counted, mean, root_mean


def keypoint_objectives() -> tuple[Objective, ...]:
    """``pck distance mse``."""
    return (
        Objective("pck", True, _found, mean),
        Objective("distance", False, _distances, mean),
        Objective("mse", False, _squared, mean),
    )


def density_objectives() -> tuple[Objective, ...]:
    """``count_mae count_rmse mae``."""
    return (
        Objective("count_mae", False, _counts_absolute, mean),
        Objective("count_rmse", False, _counts_squared, root_mean),
        Objective("mae", False, _absolute, mean),
    )


def _to_peaks(maps: Tensor, target: Tensor) -> Tensor:
    """From the highest pixel to the target's nearest peak, ``(M, channels that have a point)``."""
    places = maps.double().flatten(2).argmax(2)
    found = torch.stack([places // maps.shape[-1], places % maps.shape[-1]], dim=-1).double()
    distances = [
        torch.cdist(found[:, number], peaks_of(wanted).double()).amin(1)
        for number, wanted in enumerate(target.double())
        if wanted.max() > 0
    ]
    return torch.stack(distances, dim=1) if distances else torch.zeros(len(maps), 0)


def _found(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    height, width = target.shape[-2:]
    distances = _to_peaks(maps, target)
    return counted((distances <= REACH * (height**2 + width**2) ** 0.5).sum(1), distances.shape[1])


def _distances(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    distances = _to_peaks(maps, target)
    return counted(distances.sum(1), distances.shape[1])


def _squared(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    return counted((maps.double() - target.double()).square().sum((1, 2, 3)), target.numel())


def _absolute(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    return counted((maps.double() - target.double()).abs().sum((1, 2, 3)), target.numel())


def _count_errors(maps: Tensor, target: Tensor) -> Tensor:
    return maps.double().sum((2, 3)) - target.double().sum((1, 2))


def _counts_absolute(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    return counted(_count_errors(maps, target).abs().sum(1), len(target))


def _counts_squared(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    return counted(_count_errors(maps, target).square().sum(1), len(target))
