"""Means over valid pixels."""

from torch import Tensor

_TINY = 1e-12


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of finite values with weights of the same shape, bool or float >= 0; 0 if all weights are 0."""
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=_TINY)
