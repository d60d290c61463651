"""Score weighted means of candidates in one pass over the images, with the maps of one image at a time in memory."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from densemble.ensemble.resize import resize_to_target
from densemble.evaluation.scores import Target
from densemble.metrics import Objective, ScoredImage
from densemble.selection.held_out_predictions import HeldOut
from densemble.shapes import size_of
from densemble.tasks import Task

Combine = Callable[[Tensor], Tensor]
"""Maps of all candidates ``(M, K, h, w)`` -> combined maps ``(R, K, h, w)``."""

_VALUES_AT_ONCE = 2**23
"""Number of map values that are processed together, 32 MB as float32."""


def statistics(held: HeldOut, weights: Tensor | Sequence[Sequence[float]], objective: Objective) -> Tensor:
    """Compute the statistics of each image for each weighted mean of candidates.

    Args:
        held: N images of M candidates.
        weights: ``(R, M)``, >= 0, with any sum above 0 in each row.
        objective: objective of the task.

    Returns:
        float64 ``(R, N, S)``; ``objective.value`` of the sum of any images' statistics is the score on those images.

    Raises:
        ValueError: weights of another shape, negative or all 0.
    """
    return torch.stack(list(_each_image(held, weights, objective)), dim=1)


def totals(held: HeldOut, weights: Tensor | Sequence[Sequence[float]], objective: Objective) -> Tensor:
    """Compute :func:`statistics` summed over the images, ``(R, S)``, without keeping those of single images."""
    return reduce(add, _each_image(held, weights, objective))


def totals_of(held: HeldOut, combine: Combine, objective: Objective) -> Tensor:
    """Compute :func:`totals` for any function that combines maps, ``(R, S)``."""
    return reduce(add, (measure(combine(maps), target, held.task, objective) for maps, target in held))


def measure(maps: Tensor, target: Target, task: Task, objective: Objective) -> Tensor:
    """Compute the statistics of one image for R maps: ``(R, K, h, w)`` -> ``(R, S)``.

    Maps are resized to the size of the target.
    """
    values, points = target
    height, width = size_of(values)
    batch = max(_VALUES_AT_ONCE // max(maps.shape[1] * height * width, 1), 1)
    return torch.cat(
        [
            objective.statistics(ScoredImage(resize_to_target(part, values, task), values, points))
            for part in torch.split(maps, batch)
        ]
    )


def _each_image(held: HeldOut, weights: Tensor | Sequence[Sequence[float]], objective: Objective) -> Iterator[Tensor]:
    shares = torch.as_tensor(weights, dtype=torch.float64)
    if shares.ndim != 2 or shares.shape[1] != len(held.names):
        raise ValueError(f"weights have the shape {tuple(shares.shape)}; they must have (ensembles, {len(held.names)})")
    if (shares < 0).any() or (shares.sum(1) <= 0).any():
        raise ValueError("the weights of an ensemble must be >= 0 and not all 0")
    used = shares.any(0)
    held = held.of([name for name, is_used in zip(held.names, used.tolist(), strict=True) if is_used])
    shares = (shares / shares.sum(1, keepdim=True))[:, used].float()
    # Equal rows are computed once: equal rows of one matrix product may differ in the last bits, which would count as
    # a gain.
    shares, inverse = torch.unique(shares, dim=0, return_inverse=True)
    for maps, target in held:
        batch = max(_VALUES_AT_ONCE // maps[0].numel(), 1)
        yield torch.cat(
            [
                measure(torch.tensordot(part, maps, 1), target, held.task, objective)
                for part in torch.split(shares, batch)
            ]
        )[inverse]
