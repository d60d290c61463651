"""Conformal intervals of values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.ensemble.described import Described
from densemble.ensemble.guarantee.allowance import expected_allowance
from densemble.ensemble.guarantee.curve import MissCurve
from densemble.ensemble.guarantee.held_out_images import Images, observations
from densemble.errors import DataError, UsageError
from densemble.tasks import Task


@dataclass(frozen=True)
class ConformalInterval(Described):
    """Intervals of values: the expected share of a new image's pixels outside of them is at most ``miscoverage``.

    The guarantee is a mean over images, each with the same weight (see :class:`ConformalSet`).

    Attributes:
        reach: distance from the value to either end, in the value's unit; with a ``floor``, in units of
            sqrt(variance + floor), so that intervals are wide where the members disagree.
        floor: added to the variance, in the squared unit of the value; ``None``: all intervals have the same width.
        miscoverage: guaranteed share.
        images: number of images used for fitting.
    """

    reach: float
    floor: float | None
    miscoverage: float
    images: int

    kind = "conformal_interval"

    def apply(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower and upper end ``(B, 1, h, w)`` of the intervals.

        Args:
            maps: values ``(B, 1, h, w)``; with a ``floor``, values and their variances over the members
                ``(B, 2, h, w)``.
        """
        distance = self.reach * _scale(maps, self.floor)
        return maps[:, :1] - distance, maps[:, :1] + distance


def fit_interval(images: Images, task: Task, miscoverage: float = 0.1, floor: float | None = None) -> ConformalInterval:
    """Fit the narrowest intervals with a guaranteed expected miscoverage, by conformal risk control, in one pass.

    The conditions are those of :func:`fit_set`.

    Args:
        images: yields maps and targets; see ``Images``. With a ``floor``, maps hold value and variance.
        task: task of values.
        miscoverage: expected share of an image's pixels that may lie outside of their intervals.
        floor: > 0: added to the variance over the members, which then determines the width of the intervals. The
            square of a hundredth of a typical value is a good choice. It must not be fitted to these images. ``None``:
            all intervals have the same width.

    Raises:
        UsageError: the task has other targets than values, ``miscoverage`` is not in (0, 1), or ``floor`` is not > 0.
        DataError: there are too few images, or predictions are not finite.
    """
    if task.target_kind != "values":
        raise UsageError(f"conformal intervals are for tasks of values, such as depth, not '{task.name}'")
    if floor is not None and not floor > 0:
        raise UsageError(f"the floor of a variance must be positive, not {floor:g}")
    curve = MissCurve()
    for maps, ideal, valid in observations(images, task):
        curve.add(((maps[0, :1] - ideal).abs() / _scale(maps, floor)[0])[valid])
    reach = curve.smallest_above(expected_allowance(miscoverage, curve.images))
    if reach == torch.inf:
        raise DataError(
            "no interval contains the targets: predictions are infinite; leave out the member that gives them"
        )
    return ConformalInterval(reach, floor, miscoverage, curve.images)


def _scale(maps: Tensor, floor: float | None) -> Tensor:
    """Return the unit of the reach, ``(B, 1, h, w)``."""
    channels = 1 if floor is None else 2
    if maps.shape[1] != channels:
        raise ValueError(f"intervals with floor {floor} take maps of {channels} channels, not {tuple(maps.shape)}")
    return torch.ones_like(maps[:, :1]) if floor is None else (maps[:, 1:] + floor).sqrt()
