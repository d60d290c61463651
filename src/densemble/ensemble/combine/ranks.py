"""Means of maps that differ in scale: of ranks, and after their histograms were made equal."""

import torch
from torch import Tensor

from densemble.ensemble.combine.means import WeightedMean


def _places(flat: Tensor, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Where each value's equals begin and end (exclusive) among its row's sorted values; both ``(rows, N)``."""
    return torch.searchsorted(ordered, flat), torch.searchsorted(ordered, flat, right=True)


def pixel_ranks(maps: Tensor) -> Tensor:
    """Rank of each pixel in its channel of its image, 0 lowest to 1 highest; equals share the middle of their ranks.

    Args:
        maps: ``(B, K, h, w)``.
    """
    flat = maps.flatten(2).flatten(0, 1).contiguous()
    first, end = _places(flat, flat.sort(-1).values)
    ranks = (first + end - 1).to(maps.dtype) / 2 / max(flat.shape[-1] - 1, 1)
    return ranks.view_as(maps)


class RankMean:
    """Weighted mean of the members' pixel ranks (Borda count): scale and contrast of a member do not matter.

    What comes out is a share of the image that is less salient, not a probability.
    """

    def __init__(self) -> None:
        self._mean = WeightedMean()

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes one member's maps ``(B, K, h, w)`` of whole images; ``weight`` > 0."""
        self._mean.add(pixel_ranks(maps), weight)

    def result(self) -> Tensor:
        """Mean ranks in [0, 1], ``(B, K, h, w)``."""
        return self._mean.result()


class HistogramMean:
    """Weighted mean of members that were all given one histogram: the mean of theirs, quantile by quantile.

    Each member keeps its order of pixels and takes the values of the common histogram (quantile averaging, Vincent
    1912; Bolstad et al. 2003), so that a member that is paler than the others counts as much. Equal pixels of a member
    stay equal: they share the middle of their quantiles. Keeps all members: memory grows with their number.
    """

    def __init__(self) -> None:
        self._common = WeightedMean()
        self._kept: list[tuple[Tensor, Tensor, float]] = []

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes one member's maps ``(B, K, h, w)`` of whole images; ``weight`` > 0."""
        flat = maps.flatten(2).flatten(0, 1).contiguous()
        ordered = flat.sort(-1).values
        first, end = _places(flat, ordered)
        self._common.add(ordered, weight)
        self._kept.append(((first + end - 1).view(maps.shape) // 2, (first + end).view(maps.shape) // 2, weight))

    def result(self) -> Tensor:
        """Mean of the matched maps ``(B, K, h, w)``, within the range of the members' values."""
        common = self._common.result()
        mean = WeightedMean()
        for below, above, weight in self._kept:
            matched = _taken(common, below) + _taken(common, above)
            mean.add(matched / 2, weight)
        return mean.result()


def _taken(common: Tensor, places: Tensor) -> Tensor:
    """Values ``(B, K, h, w)`` at places ``(B, K, h, w)`` of sorted values ``(B * K, h * w)``."""
    return common.gather(-1, places.view(common.shape)).view(places.shape)
