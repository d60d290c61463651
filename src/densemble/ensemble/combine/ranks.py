"""Means of maps with different scales: of pixel ranks, and after histogram matching."""

import torch
from torch import Tensor

from densemble.ensemble.combine.means import TransformedMean, WeightedMean


def _equal_range(flat: Tensor, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the end index (exclusive) of each value's equals in its sorted row; both ``(rows, N)``."""
    return torch.searchsorted(ordered, flat), torch.searchsorted(ordered, flat, right=True)


def pixel_ranks(maps: Tensor) -> Tensor:
    """Rank of each pixel in its channel, from 0 (lowest) to 1 (highest); equal pixels get the mean of their ranks.

    Args:
        maps: ``(B, K, h, w)``.
    """
    flat = maps.flatten(2).flatten(0, 1).contiguous()
    first, end = _equal_range(flat, flat.sort(-1).values)
    ranks = (first + end - 1).to(maps.dtype) / 2 / max(flat.shape[-1] - 1, 1)
    return ranks.view_as(maps)


def rank_mean() -> TransformedMean:
    """Weighted mean of the members' pixel ranks (Borda count), independent of the scale and contrast of a member.

    The result is the share of the image's pixels that are less salient, not a probability. Maps must be whole images.
    """
    return TransformedMean(pixel_ranks)


class HistogramMean:
    """Weighted mean of the members after histogram matching to the mean of their histograms, quantile by quantile.

    Each member keeps the order of its pixels and takes the values of the common histogram (quantile averaging, Vincent
    1912; Bolstad et al. 2003), so members with low contrast have the same influence. Equal pixels of a member stay
    equal: they get the middle of their quantiles. Stores the maps of all members, so memory grows with their number.
    """

    def __init__(self) -> None:
        self._common = WeightedMean()
        self._kept: list[tuple[Tensor, Tensor, float]] = []

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add one member's maps ``(B, K, h, w)`` of whole images; ``weight`` > 0."""
        flat = maps.flatten(2).flatten(0, 1).contiguous()
        ordered = flat.sort(-1).values
        first, end = _equal_range(flat, ordered)
        self._common.add(ordered, weight)
        self._kept.append(((first + end - 1).view(maps.shape) // 2, (first + end).view(maps.shape) // 2, weight))

    def result(self) -> Tensor:
        """Return the mean of the matched maps ``(B, K, h, w)``, within the range of the members' values."""
        common = self._common.result()
        mean = WeightedMean()
        for below, above, weight in self._kept:
            matched = _gather(common, below) + _gather(common, above)
            mean.add(matched / 2, weight)
        return mean.result()


def _gather(common: Tensor, indices: Tensor) -> Tensor:
    """Return values ``(B, K, h, w)`` at indices ``(B, K, h, w)`` of sorted values ``(B * K, h * w)``."""
    return common.gather(-1, indices.view(common.shape)).view(indices.shape)
