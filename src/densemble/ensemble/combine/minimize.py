"""Finding the parameters of a rule."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

STEPS = 60


def minimize(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Parameters of the shape of ``start``, float32, whose loss is lower than that of ``start``, or ``start`` itself.

    L-BFGS (Liu & Nocedal 1989) of at most 60 steps: no learning rate, no chance.
    """
    from scipy.optimize import minimize as search

    def value_and_slope(flat: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, object]:
        parameters = torch.from_numpy(flat).float().view_as(start).requires_grad_()
        with torch.enable_grad():
            value = loss(parameters)
        (slope,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), slope.double().flatten().numpy()

    first = start.double().flatten().numpy()
    found = search(value_and_slope, first, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    if not found.fun < value_and_slope(first)[0]:
        return start
    return torch.from_numpy(found.x).float().view_as(start)
