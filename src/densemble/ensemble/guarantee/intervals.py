"""Intervals of values that hold what is true."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from densemble.ensemble.guarantee.allowance import expected_allowance
from densemble.ensemble.guarantee.curve import MissCurve
from densemble.ensemble.guarantee.held_out_images import Images, observations
from densemble.errors import DataError, UsageError
from densemble.tasks import Task


@dataclass(frozen=True)
class ConformalInterval:
    """Intervals: of a new image's pixels, an expected share of at most ``miscoverage`` lies outside its own.

    The promise is a mean over images, each of which counts the same (see :class:`ConformalSet`).

    Attributes:
        reach: from the value to either end, in the value's unit; where a ``floor`` is given, in units of
            sqrt(variance + floor), so that intervals are wide where the members disagree.
        floor: in the value's unit squared; ``None``: all intervals are equally wide.
        miscoverage: what was promised.
        images: how many it was fitted on.
    """

    reach: float
    floor: float | None
    miscoverage: float
    images: int

    kind: ClassVar[str] = "conformal_interval"

    def apply(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper end ``(B, 1, h, w)`` of values ``(B, 1, h, w)``; with a ``floor`` of values and variances.

        Args:
            maps: with a ``floor`` ``(B, 2, h, w)``: the value, and its variance over the members.
        """
        distance = self.reach * _scale(maps, self.floor)
        return maps[:, :1] - distance, maps[:, :1] + distance

    def describe(self) -> dict[str, Any]:
        """Plain values from which the same is made."""
        promise = {"miscoverage": self.miscoverage, "pictures": self.images}
        return {"kind": self.kind, "reach": self.reach, "floor": self.floor, **promise}


def fit_interval(images: Images, task: Task, miscoverage: float = 0.1, floor: float | None = None) -> ConformalInterval:
    """The narrowest intervals whose expected miscoverage can be promised, by conformal risk control; one pass.

    The conditions are those of :func:`fit_set`.

    Args:
        floor: > 0: intervals follow the members' spread, ``images`` give value and variance, and this is added to the
            variance; the square of a hundredth of a typical value is a good choice. It must not be made to fit these
            images.

    Raises:
        UsageError: a task of other than values, ``miscoverage`` is not in (0, 1), or ``floor`` is not positive.
        DataError: too few images, or predictions that are not finite.
    """
    if task.target_kind != "values":
        raise UsageError(f"conformal intervals are for tasks of values, as depth is, not '{task.name}'")
    if floor is not None and not floor > 0:
        raise UsageError(f"the floor of a variance must be positive, not {floor:g}")
    curve = MissCurve()
    for maps, ideal, valid in observations(images, task):
        curve.add(((maps[0, :1] - ideal).abs() / _scale(maps, floor)[0])[valid])
    reach = curve.smallest_above(expected_allowance(miscoverage, curve.images))
    if reach == torch.inf:
        raise DataError("no interval holds what is true: predictions are infinite; leave out the member they come from")
    return ConformalInterval(reach, floor, miscoverage, curve.images)


def make_interval(values: dict[str, Any]) -> ConformalInterval:
    """From the plain values of ``describe``."""
    floor = values["floor"]
    return ConformalInterval(
        float(values["reach"]),
        None if floor is None else float(floor),
        float(values["miscoverage"]),
        int(values["pictures"]),
    )


def _scale(maps: Tensor, floor: float | None) -> Tensor:
    """What the reach is told in, ``(B, 1, h, w)``."""
    channels = 1 if floor is None else 2
    if maps.shape[1] != channels:
        raise ValueError(f"intervals with floor {floor} take maps of {channels} channels, not {tuple(maps.shape)}")
    return torch.ones_like(maps[:, :1]) if floor is None else (maps[:, 1:] + floor).sqrt()
