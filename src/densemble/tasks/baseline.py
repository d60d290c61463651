"""Baselines that need no training: what a map scores that is the same for every image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.shapes import Size, format_size
from densemble.tasks.task import Task


def mean_map(task: Task, targets: Iterable[Tensor], size: Size) -> Tensor:
    """The mean of the ideal maps at each pixel, over the targets where it is valid.

    A pixel that is valid in no target gets its channel's mean over all pixels; a channel without a valid pixel is 0.

    Args:
        task: what the targets mean.
        targets: of one size, ``(h, w)`` or ``(K, h, w)`` as the task has them.
        size: (h, w) of them all.

    Returns:
        Activated map, float32 ``(K, h, w)``.

    Raises:
        DataError: no targets, one of another size, or none with a valid pixel.
    """
    total = torch.zeros(task.out_channels, *size, dtype=torch.float64)
    count = torch.zeros_like(total)
    for target in targets:
        if tuple(target.shape[-2:]) != size:
            found = format_size((int(target.shape[-2]), int(target.shape[-1])))
            raise DataError(f"a target of {found} cannot join a mean map of {format_size(size)}; resize it first")
        values, valid = task.as_maps(target)
        total += values.double() * valid
        count += valid
    if not count.any():
        raise DataError("no training map has a valid pixel to take a mean of; look at them with `densemble data check`")
    overall = total.sum((1, 2), keepdim=True) / count.sum((1, 2), keepdim=True).clamp(min=1)
    return torch.where(count > 0, total / count.clamp(min=1), overall).float()


def majority_map(mean: Tensor) -> Tensor:
    """The class that is the most frequent overall, at every pixel: mean map ``(K, h, w)`` -> one-hot ``(K, h, w)``."""
    wanted = torch.zeros_like(mean)
    wanted[mean.mean((1, 2)).argmax()] = 1
    return wanted


@dataclass(frozen=True)
class Baseline:
    """A row of ``BASELINES``.

    Attributes:
        predict: mean map ``(K, h, w)`` of the training targets -> the map that it predicts for every image.
        suits: whether the baseline means something for a task.
    """

    predict: Callable[[Tensor], Tensor]
    suits: Callable[[Task], bool] = lambda task: True


BASELINES: dict[str, Baseline] = {
    "mean map": Baseline(torch.clone),
    "majority class": Baseline(majority_map, lambda task: task.distribution == "categorical"),
}
"""Baseline by name."""


def baseline_names(task: Task) -> tuple[str, ...]:
    """Rows of ``BASELINES`` that suit a task."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.suits(task))
