"""Combination rules: activated maps of the members go in one after the other, one map comes out.

A rule keeps running sums, so that memory does not grow with the number of members.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Rule(Protocol):
    """What a combination rule does."""

    def add(self, maps: Tensor, weight: float) -> None:
        """Takes one member's activated maps ``(B, K, h, w)``."""

    def result(self) -> Tensor:
        """The combined maps ``(B, K, h, w)``."""


class WeightedMean:
    """Arithmetic mean of probabilities or values, weighted."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._weight = 0.0

    def add(self, maps: Tensor, weight: float) -> None:
        """Takes one member's activated maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._sum = maps * weight if self._sum is None else self._sum + maps * weight
        self._weight += weight

    def result(self) -> Tensor:
        """The mean ``(B, K, h, w)``.

        Raises:
            ValueError: nothing was added.
        """
        if self._sum is None:
            raise ValueError("the mean of no maps is not defined")
        return self._sum / self._weight


COMBINE: dict[str, Callable[[], Rule]] = {"mean": WeightedMean}
"""Rule by name: called without arguments, gives a fresh accumulator."""
