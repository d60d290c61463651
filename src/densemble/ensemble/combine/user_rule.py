"""Combination rules of the user: a function of the stacked maps, an accumulator, or a row."""

from collections.abc import Callable

import torch
from torch import Tensor

from densemble.ensemble.combine.rule import CombinationRule
from densemble.errors import UsageError
from densemble.user_code import shape_or_type

Combine = Callable[[Tensor, Tensor], Tensor]
"""(maps ``(M, B, K, h, w)``, weights ``(M,)`` that sum to 1) -> combined maps ``(B, K, h, w)``."""


class StackedRule:
    """A function of the maps of all members; it keeps them in memory.

    Args:
        combine: see :data:`Combine`.
        name: name of the rule, used in messages.
    """

    def __init__(self, combine: Combine, name: str) -> None:
        self.combine = combine
        self.name = name
        self.maps: list[Tensor] = []
        self.weights: list[float] = []

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Keep one member's activated maps ``(B, K, h, w)`` and its weight."""
        self.maps.append(maps)
        self.weights.append(weight)

    def result(self) -> Tensor:
        """Return the combined maps ``(B, K, h, w)``.

        Raises:
            ValueError: nothing was added.
            UsageError: the function returns anything else.
        """
        if not self.maps:
            raise ValueError("no maps were added")
        first = self.maps[0]
        combined = self.combine(torch.stack(self.maps), first.new_tensor(self.weights) / sum(self.weights))
        if not isinstance(combined, Tensor) or combined.shape != first.shape:
            raise UsageError(
                f"the combination rule '{self.name}' must return maps {tuple(first.shape)}, got "
                f"{shape_or_type(combined)}; combine over the first axis of the maps"
            )
        return combined


def user_row(part: object, name: str) -> CombinationRule:
    """Return the row of a rule of the user.

    Args:
        part: a :class:`CombinationRule`, which sets all traits; a class that implements :class:`Rule` and takes no
            arguments; or a function, see :data:`Combine`.
        name: name of the rule, used in messages.

    Raises:
        UsageError: ``part`` is none of them.
    """
    if isinstance(part, CombinationRule):
        return part
    if isinstance(part, type) and hasattr(part, "add") and hasattr(part, "result"):
        return CombinationRule(lambda task, fitted: part())
    if callable(part) and not isinstance(part, type):
        return CombinationRule(lambda task, fitted: StackedRule(part, name))
    raise UsageError(
        f"the combination rule '{name}' is a {type(part).__name__}; give a function of (maps, weights), a class with "
        "the methods add and result, or a densemble.CombinationRule"
    )
