"""Bins of equal relative width for numbers >= 0 whose range is not known beforehand.

The leading bits of a positive float32 grow with the number. Taken as a bin's number they make bins that are 0.1 % wide
from the smallest number to the largest, with 0 in the first: one pass, no range to guess, and as fine near 0, where
most uncertainties lie, as anywhere.
"""

import torch
from torch import Tensor

_DROPPED_BITS = 13
_INFINITY = 0x7F800000
BINS = (_INFINITY >> _DROPPED_BITS) + 1
"""How many there are."""


def place(values: Tensor) -> Tensor:
    """Numbers >= 0, infinity included -> the numbers of their bins, int64 of the same shape.

    Raises:
        ValueError: a value is negative or NaN.
    """
    if not bool((values >= 0).all()):
        raise ValueError("bins are for numbers >= 0; there is a negative one or NaN")
    bits = values.float().abs().view(torch.int32)  # of -0.0 the sign bit would be set
    return (bits >> _DROPPED_BITS).long()


def lowest(number: int) -> float:
    """The smallest value that lies in a bin."""
    return _as_float(number << _DROPPED_BITS)


def highest(number: int) -> float:
    """The largest value that lies in a bin."""
    return _as_float(min(((number + 1) << _DROPPED_BITS) - 1, _INFINITY))


def _as_float(bits: int) -> float:
    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))
