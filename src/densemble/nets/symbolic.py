"""Largest and smallest of two sizes that may be symbolic, in a graph that is exported for images of any size."""

from typing import cast

import torch


def int_max(a: int, b: int) -> int:
    """Return the larger number; ``max`` would compare symbolic numbers and fix the result."""
    return cast(int, torch.sym_max(a, b))


def int_min(a: int, b: int) -> int:
    """Return the smaller number; ``min`` would compare symbolic numbers and fix the result."""
    return cast(int, torch.sym_min(a, b))
