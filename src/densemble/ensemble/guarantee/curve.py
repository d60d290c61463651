"""What a threshold would miss of each image, for every threshold at once."""

import torch
from torch import Tensor

from densemble.metrics import relative_bins


class MissCurve:
    """Mean over images of the share of an image's scores on one side of a threshold.

    Every image counts the same, whatever its size; one histogram is kept. Candidates are the edges of the bins, which
    lie 0.1 % apart: at each of them the share is exact.
    """

    def __init__(self) -> None:
        self._shares = torch.zeros(relative_bins.BINS, dtype=torch.float64)
        self.images = 0
        """How many had a score."""

    def add(self, scores: Tensor) -> None:
        """Takes one image's scores, of any shape and >= 0; one without scores counts nowhere."""
        if scores.numel():
            places = relative_bins.place(scores.flatten())
            self._shares.index_add_(0, places, torch.full(places.shape, 1 / len(places), dtype=torch.float64))
            self.images += 1

    def largest_below(self, allowance: float) -> float:
        """The largest threshold that at most ``allowance`` of an image's scores, in the mean, fall short of."""
        below = self._shares.cumsum(0) - self._shares
        return relative_bins.lowest(int((below <= allowance * self.images).nonzero().max()))

    def smallest_above(self, allowance: float) -> float:
        """The smallest threshold that at most ``allowance`` of an image's scores, in the mean, exceed."""
        from_here = self._shares.flip(0).cumsum(0).flip(0)
        above = torch.cat([from_here[1:], from_here.new_zeros(1)])
        return relative_bins.highest(int((above <= allowance * self.images).nonzero().min()))
