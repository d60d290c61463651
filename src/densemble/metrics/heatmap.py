"""Metrics of point maps: positions of keypoints, and numbers of points."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.metrics.metric import Metric, Objective, ScoredImage, counted, mean, root_mean

REACH = 0.05
"""Largest distance of a correct keypoint, as a share of the diagonal of the map."""


class KeypointMetrics(Metric):
    """``pck distance mse`` of maps with a peak at each keypoint; targets ``(K, H, W)`` in [0, 1].

    ``distance`` is the distance from the highest pixel of a predicted channel to the peak of the target, in pixels of
    the target, as the mean over all channels of all images. ``pck`` is the share of these distances within 5 % of the
    diagonal of the map (after Yang & Ramanan 2013). A channel whose target is 0 everywhere has no point and is left out
    of both. If a target has several peaks, those with at least half the height of the highest one count, and the
    nearest is used. ``mse`` is over all pixels.
    """

    def __init__(self) -> None:
        super().__init__(
            Objective("pck", True, _reached, mean),
            Objective("distance", False, _total_distance, mean),
            Objective("mse", False, _squared, mean),
        )


def _distances(image: ScoredImage) -> Tensor:
    """Return distances from the highest pixel to the nearest peak, float64 ``(M, channels with a point)``."""
    highest = image.maps.flatten(2).argmax(2)
    width = image.maps.shape[-1]
    predicted = torch.stack([highest // width, highest % width], dim=-1).double()
    distances = [
        (predicted[:, None, channel] - peaks_of(target).double()).norm(dim=-1).amin(1)
        for channel, target in enumerate(image.target.double())
        if target.max() > 0
    ]
    return torch.stack(distances, dim=1) if distances else torch.zeros(len(predicted), 0)


def peaks_of(target: Tensor) -> Tensor:
    """Return row and column of each pixel that is the highest of its neighbourhood, ``(H, W)`` -> ``(N, 2)``."""
    highest = F.max_pool2d(target[None], 3, stride=1, padding=1)[0]
    return ((target == highest) & (target >= target.max() / 2)).nonzero()


def _reached(image: ScoredImage) -> Tensor:
    height, width = image.target.shape[-2:]
    distances = image.once(_distances)
    return counted((distances <= REACH * (height**2 + width**2) ** 0.5).sum(1), distances.shape[1])


def _total_distance(image: ScoredImage) -> Tensor:
    distances = image.once(_distances)
    return counted(distances.sum(1), distances.shape[1])


def _squared(image: ScoredImage) -> Tensor:
    return counted((image.maps.double() - image.target.double()).square().sum((1, 2, 3)), image.target.numel())


class DensityMetrics(Metric):
    """``count_mae count_rmse mae`` of densities ``(K, H, W)`` whose sum is a count.

    ``count_mae`` and ``count_rmse`` are over the counts of all channels of all images, ``mae`` is over all pixels.
    """

    def __init__(self) -> None:
        super().__init__(
            Objective("count_mae", False, _counts_absolute, mean),
            Objective("count_rmse", False, _counts_squared, root_mean),
            Objective("mae", False, _absolute, mean),
        )


def _in_double(image: ScoredImage) -> tuple[Tensor, Tensor]:
    return image.maps.double(), image.target.double()


def _count_errors(image: ScoredImage) -> Tensor:
    maps, target = image.once(_in_double)
    return maps.sum((2, 3)) - target.sum((1, 2))


def _counts_absolute(image: ScoredImage) -> Tensor:
    return counted(image.once(_count_errors).abs().sum(1), len(image.target))


def _counts_squared(image: ScoredImage) -> Tensor:
    return counted(image.once(_count_errors).square().sum(1), len(image.target))


def _absolute(image: ScoredImage) -> Tensor:
    maps, target = image.once(_in_double)
    return counted((maps - target).abs().sum((1, 2, 3)), target.numel())
