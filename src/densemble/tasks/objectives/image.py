"""Objectives of image to image tasks, means over pictures; see :mod:`densemble.metrics.image`."""

import torch
from torch import Tensor

from densemble.metrics.image import LEAST_ERROR
from densemble.metrics.structural_similarity import similarity_map
from densemble.tasks.objectives.base import Objective, counted, mean, nothing


def image_objectives() -> tuple[Objective, ...]:
    """``psnr ssim mae``."""
    return (
        Objective("psnr", True, _signal_to_noise, mean),
        Objective("ssim", True, _similarities, mean),
        Objective("mae", False, _absolute, mean),
    )


def _errors(maps: Tensor, target: Tensor) -> Tensor:
    """Differences ``(M, N)`` where the target is valid."""
    valid = torch.isfinite(target)
    return maps[:, valid].double() - target[valid].double()


def _signal_to_noise(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    errors = _errors(maps, target)
    if not errors.shape[1]:
        return nothing(maps)
    return counted(-10 * torch.log10(errors.square().mean(1).clamp(min=LEAST_ERROR)), 1)


def _absolute(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    errors = _errors(maps, target)
    return counted(errors.abs().mean(1), 1) if errors.shape[1] else nothing(maps)


def _similarities(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    valid = torch.isfinite(target)
    wanted = torch.where(valid, target, 0.0).double().expand(maps.shape)
    similarity, whole = similarity_map(maps.double(), wanted, valid[None])
    windows = int(whole[0].sum())
    return counted((similarity * whole).sum((1, 2, 3)) / windows, 1) if windows else nothing(maps)
