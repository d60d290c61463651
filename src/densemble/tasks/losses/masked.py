"""Means that see only what is valid."""

from torch import Tensor

_TINY = 1e-12


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of finite values by weights of the same shape, bool or float >= 0; 0 where all weights are."""
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=_TINY)
