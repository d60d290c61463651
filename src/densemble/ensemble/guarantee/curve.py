"""Mean share of scores below or above a threshold, for all thresholds at once."""

import torch
from torch import Tensor

from densemble.metrics import relative_bins


class MissCurve:
    """Mean over images of the share of an image's scores on one side of a threshold.

    Every image has the same weight, whatever its size. Stores one histogram; candidate thresholds are the edges of its
    bins, which are 0.1 % apart. At each edge the share is exact.
    """

    def __init__(self) -> None:
        self._shares = torch.zeros(relative_bins.BINS, dtype=torch.float64)
        self.images = 0
        """Number of images with scores."""

    def add(self, scores: Tensor) -> None:
        """Add one image's scores >= 0, of any shape; an image without scores is not counted."""
        if scores.numel():
            bins = relative_bins.bin_index(scores.flatten())
            self._shares.index_add_(0, bins, torch.full(bins.shape, 1 / len(bins), dtype=torch.float64))
            self.images += 1

    def largest_below(self, allowance: float) -> float:
        """Return the largest threshold for which the mean share of scores below it is at most ``allowance``."""
        below = self._shares.cumsum(0) - self._shares
        return relative_bins.lowest(int((below <= allowance * self.images).nonzero().max()))

    def smallest_above(self, allowance: float) -> float:
        """Return the smallest threshold for which the mean share of scores above it is at most ``allowance``."""
        from_here = self._shares.flip(0).cumsum(0).flip(0)
        above = torch.cat([from_here[1:], from_here.new_zeros(1)])
        return relative_bins.highest(int((above <= allowance * self.images).nonzero().min()))
