"""Newton's method for a convex loss that is measured in passes over held-out images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_PASSES = 30
_HALVINGS = 8
_ENOUGH = 1e-7
"""The method ends with the first step whose expected gain is smaller, in nats per value: it converges quadratically."""


class Curvature(NamedTuple):
    """Value and derivatives of a loss at one point, float64.

    Attributes:
        loss: scalar.
        gradient: ``(P,)``.
        hessian: ``(P, P)``, positive definite.
    """

    loss: float
    gradient: Tensor
    hessian: Tensor


def minimize_convex(
    measure: Callable[[Tensor], Curvature], start: Tensor, low: float = -torch.inf, high: float = torch.inf
) -> Tensor:
    """Minimize a convex loss by Newton's method; steps are halved while they increase the loss.

    Args:
        measure: computes the loss and its derivatives in one pass over the data.
        start: float64 ``(P,)``; the loss of the result is not higher.
        low: lower bound of a single parameter (P = 1).
        high: upper bound of a single parameter (P = 1).

    Returns:
        Parameters, float64 ``(P,)``.
    """
    point, current = start, measure(start)
    for _ in range(_PASSES):
        step: Tensor = (point - torch.linalg.solve(current.hessian, current.gradient)).clamp(low, high) - point
        if -float(current.gradient @ step + step @ current.hessian @ step / 2) < _ENOUGH:
            return point + step
        for _ in range(_HALVINGS):
            candidate = measure(point + step)
            if candidate.loss <= current.loss:
                break
            step = step / 2
        else:
            return point
        point, current = point + step, candidate
    return point
