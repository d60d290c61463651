"""Metrics of point maps: where keypoints are found, and how many points there are."""

import torch.nn.functional as F
from torch import Tensor

from densemble.metrics.base import MetricValues

REACH = 0.05


class KeypointMetrics:
    """``pck distance mse`` of maps that peak at a keypoint.

    ``distance`` is from the highest pixel of a predicted channel to the target's peak, in pixels of the target, a mean
    over all channels of all pictures; ``pck`` the share of them within 5 % of the map's diagonal (after Yang & Ramanan
    2013). A channel whose target is 0 everywhere has no point and is left out of both; where a target has several
    peaks, those of at least half the highest count, and the nearest is taken. ``mse`` is over all pixels.
    """

    def __init__(self) -> None:
        self._channels = self._found = self._pixels = 0
        self._distance = self._squared = 0.0

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: maps ``(K, H, W)``, targets ``(K, H, W)`` in [0, 1]."""
        p, t = prediction.double(), target.double()
        self._pixels += t.numel()
        self._squared += float((p - t).square().sum())
        height, width = t.shape[-2:]
        reach = REACH * (height**2 + width**2) ** 0.5
        for channel, wanted in zip(p, t, strict=True):
            if wanted.max() <= 0:
                continue
            row, column = divmod(int(channel.argmax()), width)
            peaks = peaks_of(wanted).double()
            distance = float((peaks - peaks.new_tensor([row, column])).norm(dim=1).min())
            self._channels += 1
            self._distance += distance
            self._found += distance <= reach

    def compute(self) -> MetricValues:
        """The metrics; ``None`` where no channel has a point."""
        return {
            "pck": self._found / self._channels if self._channels else None,
            "distance": self._distance / self._channels if self._channels else None,
            "mse": self._squared / self._pixels if self._pixels else None,
        }


def peaks_of(wanted: Tensor) -> Tensor:
    """Row and column of each pixel that is the highest of its neighbours, ``(H, W)`` -> ``(N, 2)``."""
    highest = F.max_pool2d(wanted[None], 3, stride=1, padding=1)[0]
    return ((wanted == highest) & (wanted >= wanted.max() / 2)).nonzero()


class DensityMetrics:
    """``count_mae count_rmse mae`` of maps whose sum is a count.

    The first two are over the counts of all channels of all pictures, ``mae`` over all pixels.
    """

    def __init__(self) -> None:
        self._counts = self._pixels = 0
        self._absolute = self._squared = self._per_pixel = 0.0

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: densities ``(K, H, W)``, targets ``(K, H, W)`` of the same size, for sums must compare."""
        p, t = prediction.double(), target.double()
        error = p.sum((1, 2)) - t.sum((1, 2))
        self._counts += len(error)
        self._pixels += t.numel()
        self._absolute += float(error.abs().sum())
        self._squared += float(error.square().sum())
        self._per_pixel += float((p - t).abs().sum())

    def compute(self) -> MetricValues:
        """The metrics; ``None`` where there was no picture."""
        if not self._pixels:
            return {"count_mae": None, "count_rmse": None, "mae": None}
        return {
            "count_mae": self._absolute / self._counts,
            "count_rmse": (self._squared / self._counts) ** 0.5,
            "mae": self._per_pixel / self._pixels,
        }
