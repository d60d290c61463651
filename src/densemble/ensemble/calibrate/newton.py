"""Newton's method for a convex loss that is measured in passes over held-out images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_PASSES = 30
_HALVINGS = 8
_ENOUGH = 1e-7
"""Nats per value that the next step would gain: below it that step is the last one, for Newton's converges
quadratically."""


class Curvature(NamedTuple):
    """A loss and its derivatives at one place, float64.

    Attributes:
        loss: scalar.
        gradient: ``(P,)``.
        hessian: ``(P, P)``, positive definite.
    """

    loss: float
    gradient: Tensor
    hessian: Tensor


def minimise(
    measure: Callable[[Tensor], Curvature], start: Tensor, low: float = -torch.inf, high: float = torch.inf
) -> Tensor:
    """Where a convex loss is least, float64 ``(P,)``: Newton's method with steps halved while they make it worse.

    Args:
        measure: one pass over the data.
        start: float64 ``(P,)``; what comes out is not worse.
        low: bound of a single parameter (P = 1).
        high: bound of a single parameter.
    """
    place, here = start, measure(start)
    for _ in range(_PASSES):
        step: Tensor = (place - torch.linalg.solve(here.hessian, here.gradient)).clamp(low, high) - place
        if -float(here.gradient @ step + step @ here.hessian @ step / 2) < _ENOUGH:
            return place + step
        for _ in range(_HALVINGS):
            there = measure(place + step)
            if there.loss <= here.loss:
                break
            step = step / 2
        else:
            return place
        place, here = place + step, there
    return place
