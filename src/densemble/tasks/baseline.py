"""Baselines without training: scores of a map that is the same for every image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.shapes import Size, format_size, size_of
from densemble.tasks.task import Task


def mean_map(task: Task, targets: Iterable[Tensor], size: Size) -> Tensor:
    """Average the ideal maps at each pixel, over the targets where the pixel is valid.

    A pixel that is valid in no target gets the mean of its channel over all pixels; a channel without a valid pixel is
    0.

    Args:
        task: meaning of the targets.
        targets: targets of one size, ``(h, w)`` or ``(K, h, w)``, in the form that the task uses.
        size: (h, w) of all targets.

    Returns:
        Activated map, float32 ``(K, h, w)``.

    Raises:
        DataError: there are no targets, one has another size, or none has a valid pixel.
    """
    total = torch.zeros(task.out_channels, *size, dtype=torch.float64)
    count = torch.zeros_like(total)
    for target in targets:
        if tuple(target.shape[-2:]) != size:
            raise DataError(
                f"a target of {format_size(size_of(target))} cannot be added to a mean map of {format_size(size)}; "
                "resize it first"
            )
        values, valid = task.as_maps(target)
        total += values.double() * valid
        count += valid
    if not count.any():
        raise DataError("no training map has a valid pixel to average; check the maps with `densemble data check`")
    overall = total.sum((1, 2), keepdim=True) / count.sum((1, 2), keepdim=True).clamp(min=1)
    return torch.where(count > 0, total / count.clamp(min=1), overall).float()


def majority_map(mean: Tensor) -> Tensor:
    """Return the most frequent class at every pixel: mean map ``(K, h, w)`` -> one-hot ``(K, h, w)``."""
    one_hot = torch.zeros_like(mean)
    one_hot[mean.mean((1, 2)).argmax()] = 1
    return one_hot


@dataclass(frozen=True)
class Baseline:
    """A row of ``BASELINES``.

    Attributes:
        predict: takes the mean map ``(K, h, w)`` of the training targets; returns the map predicted for every image.
        suits: whether the baseline is meaningful for a task.
    """

    predict: Callable[[Tensor], Tensor]
    suits: Callable[[Task], bool] = lambda task: True


BASELINES: dict[str, Baseline] = {
    "mean map": Baseline(torch.clone),
    "majority class": Baseline(majority_map, lambda task: task.distribution == "categorical"),
}
"""Baselines by name."""


def baseline_names(task: Task) -> tuple[str, ...]:
    """Return the names of the rows of ``BASELINES`` that suit a task."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.suits(task))
