"""Losses of values: predictions, finite targets and valid pixels (bool), all of one shape and in one unit.

For absolute and squared errors, the valid pixels may also be weights >= 0.
"""

import torch
from torch import Tensor

from densemble.tasks.losses.masked import masked_mean

_LAMBDA = 0.85
_THRESHOLD = 0.2
_TINY = 1e-6


def absolute(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error."""
    return masked_mean((prediction - target).abs(), valid)


def squared(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean squared error."""
    return masked_mean((prediction - target).square(), valid)


def scale_invariant_log(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Scale-invariant log error over positive targets (Eigen et al. 2014); predictions must be positive.

    The square root of mean(d²) - 0.85 mean(d)², where d is the difference of the logarithms, as in BTS (Lee et al.
    2019) and AdaBins (Bhat et al. 2021), without their factor of 10.
    """
    valid = valid & (target > 0)
    d = prediction.clamp(min=_TINY).log() - torch.where(valid, target, 1.0).log()
    mean = masked_mean(d, valid)
    # Equal to the formula, but a sum of squares: rounding cannot make it negative.
    square = masked_mean((d - mean).square(), valid) + (1 - _LAMBDA) * mean.square()
    exact = square <= _TINY**2  # at 0 the derivative of the square root is infinite
    return torch.where(exact, 0.0, torch.where(exact, 1.0, square).sqrt())


def reverse_huber(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """BerHu loss (Laina et al. 2016): |e| up to c, else (e² + c²) / 2c; c is a fifth of the batch's largest error."""
    error = torch.where(valid, (prediction - target).abs(), 0.0)
    limit = _THRESHOLD * error.detach().max()
    beyond = (error.square() + limit**2) / (2 * limit).clamp(min=_TINY)
    return masked_mean(torch.where(error <= limit, error, beyond), valid)
