"""Minimization of a differentiable loss for fitting a rule."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

STEPS = 60


def minimize(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return parameters with a lower loss than ``start``, float32 of the same shape, or ``start`` itself.

    Uses at most 60 steps of L-BFGS (Liu & Nocedal 1989), which is deterministic and needs no learning rate.
    """
    from scipy.optimize import minimize as search

    def value_and_gradient(flat: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, object]:
        parameters = torch.from_numpy(flat).float().view_as(start).requires_grad_()
        with torch.enable_grad():
            value = loss(parameters)
        (gradient,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), gradient.double().flatten().numpy()

    first = start.double().flatten().numpy()
    optimum = search(value_and_gradient, first, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    if not optimum.fun < value_and_gradient(first)[0]:
        return start
    return torch.from_numpy(optimum.x).float().view_as(start)
