"""What every metric accumulator does."""

from typing import Protocol

from torch import Tensor

MetricValues = dict[str, "float | list[float | None] | None"]


class Metric(Protocol):
    """Takes pictures one by one and keeps sums only."""

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture.

        Args:
            prediction: activated map ``(K, H, W)``.
            target: ``(H, W)`` or ``(K, H, W)``, as the task has them.
            points: fixations, bool ``(H, W)``.
        """

    def compute(self) -> MetricValues:
        """The metrics over all pictures so far."""
