"""Correlation of the candidates' errors."""

import torch
from torch import Tensor

from densemble.ensemble.resize import resize_to_target
from densemble.selection.held_out_predictions import HeldOut
from densemble.tasks import Task

_ROUNDING = 1e-12


def error_correlation(held: HeldOut) -> Tensor:
    """Compute Pearson's correlation of the candidates' errors over all valid pixels of all images.

    The error of a pixel is 0 or 1 for classes, else the absolute difference. Members with errors at the same pixels
    cannot correct each other.

    Returns:
        float64 ``(M, M)``; NaN in the row and column of a candidate whose error is the same at every pixel.
    """
    count = len(held.names)
    pixels, sums, products = 0, torch.zeros(count, dtype=torch.float64), torch.zeros(count, count, dtype=torch.float64)
    for maps, (target, _) in held:
        errors = torch.stack([_errors(member_maps, target, held.task) for member_maps in maps])
        pixels += errors.shape[1]
        sums += errors.sum(1)
        products += errors @ errors.T
    covariance = products * pixels - torch.outer(sums, sums)
    squares = products.diagonal() * pixels
    deviation = torch.where(covariance.diagonal() > _ROUNDING * squares, covariance.diagonal(), 0.0).sqrt()
    scale = torch.outer(deviation, deviation)
    return torch.where(scale > 0, covariance / scale, torch.nan)


def _errors(maps: Tensor, target: Tensor, task: Task) -> Tensor:
    """Error of one candidate's maps ``(K, h, w)`` at each valid pixel, float64 ``(N,)``."""
    maps = resize_to_target(maps[None], target, task)[0]
    target_maps, valid = task.as_maps(target)
    if task.target_kind == "labels":
        return (maps.argmax(0) != target.long())[valid[0]].double()
    if task.target_kind == "masks":
        return ((maps >= 0.5) != (target_maps >= 0.5))[valid].double()
    return (maps - target_maps).abs()[valid.expand_as(target_maps)].double()
