"""Scores of mixtures of candidates from one pass over the images; memory holds one image's maps at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from densemble.ensemble.resize import resize_maps
from densemble.evaluation.scores import Target
from densemble.metrics import Objective, ScoredImage
from densemble.selection.held_out_predictions import HeldOut
from densemble.shapes import Size
from densemble.tasks import Task

Combine = Callable[[Tensor], Tensor]
"""Maps of all candidates ``(M, K, h, w)`` -> mixtures ``(R, K, h, w)``."""

_VALUES_AT_ONCE = 2**23
"""How many values of maps are worked on together, 32 MB as float32."""


def statistics(held: HeldOut, weights: Tensor | Sequence[Sequence[float]], objective: Objective) -> Tensor:
    """What each image adds to the score of each weighted mean.

    Args:
        held: N images of M candidates.
        weights: ``(R, M)`` >= 0, of any sum above 0.
        objective: of the task.

    Returns:
        float64 ``(R, N, S)``: ``objective.value`` of any sum of rows is the score on those images.

    Raises:
        ValueError: weights of another shape, negative or all 0.
    """
    return torch.stack(list(_each_image(held, weights, objective)), dim=1)


def totals(held: HeldOut, weights: Tensor | Sequence[Sequence[float]], objective: Objective) -> Tensor:
    """:func:`statistics` summed over the images, ``(R, S)``; nothing is kept of a single image."""
    return _sum(_each_image(held, weights, objective))


def totals_of(held: HeldOut, combine: Combine, objective: Objective) -> Tensor:
    """:func:`totals` of any other rule, ``(R, S)``."""
    return _sum(measure(combine(maps), truth, held.task, objective) for maps, truth in held)


def measure(mixtures: Tensor, truth: Target, task: Task, objective: Objective) -> Tensor:
    """What one image adds, mixtures ``(R, K, h, w)`` -> ``(R, S)``; maps are resized to the target's size."""
    target, points = truth
    size: Size = (int(target.shape[-2]), int(target.shape[-1]))
    several = max(_VALUES_AT_ONCE // max(mixtures.shape[1] * size[0] * size[1], 1), 1)
    density = task.target_kind == "density"
    return torch.cat(
        [
            objective.statistics(ScoredImage(resize_maps(some, size, density), target, points))
            for some in torch.split(mixtures, several)
        ]
    )


def _each_image(held: HeldOut, weights: Tensor | Sequence[Sequence[float]], objective: Objective) -> Iterator[Tensor]:
    shares = torch.as_tensor(weights, dtype=torch.float64)
    if shares.ndim != 2 or shares.shape[1] != len(held.names):
        raise ValueError(f"weights are {tuple(shares.shape)}; they must be (mixtures, {len(held.names)})")
    if (shares < 0).any() or (shares.sum(1) <= 0).any():
        raise ValueError("the weights of a mixture must be >= 0 and not all 0")
    used = shares.any(0)
    held = held.of([name for name, one in zip(held.names, used.tolist(), strict=True) if one])
    shares = (shares / shares.sum(1, keepdim=True))[:, used].float()
    # Equal mixtures are computed once: rows of one product may differ in the last bits, which would pass for a gain.
    shares, place = torch.unique(shares, dim=0, return_inverse=True)
    for maps, truth in held:
        several = max(_VALUES_AT_ONCE // maps[0].numel(), 1)
        yield torch.cat(
            [
                measure(torch.tensordot(some, maps, 1), truth, held.task, objective)
                for some in torch.split(shares, several)
            ]
        )[place]


def _sum(parts: Iterator[Tensor]) -> Tensor:
    total = next(parts)
    for part in parts:
        total = total + part
    return total
