"""Bins of equal relative width for numbers >= 0 of unknown range.

The leading bits of a positive float32 grow with the number. Used as the index of a bin, they define bins that are 0.1 %
wide from the smallest number to the largest, with 0 in the first bin. This needs one pass and no range, and the
resolution near 0, where most uncertainties are, is as fine as elsewhere.
"""

import torch
from torch import Tensor

_DROPPED_BITS = 13
_INFINITY = 0x7F800000
BINS = (_INFINITY >> _DROPPED_BITS) + 1
"""Number of bins."""


def bin_index(values: Tensor) -> Tensor:
    """Return the indices of the bins of numbers >= 0, infinity included: int64 of the same shape.

    Raises:
        ValueError: a value is negative or NaN.
    """
    if not bool((values >= 0).all()):
        raise ValueError("bins are for numbers >= 0; got a negative number or NaN")
    bits = values.float().abs().view(torch.int32)  # abs() removes the sign bit of -0.0
    return (bits >> _DROPPED_BITS).long()


def lowest(index: int) -> float:
    """Return the smallest value in a bin."""
    return _as_float(index << _DROPPED_BITS)


def highest(index: int) -> float:
    """Return the largest value in a bin."""
    return _as_float(min(((index + 1) << _DROPPED_BITS) - 1, _INFINITY))


def _as_float(bits: int) -> float:
    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))
