"""Losses of point maps: peaks of 1 at keypoints, or densities whose sum is a count; all ``(B, K, h, w)``."""

import torch.nn.functional as F
from torch import Tensor

_LOWEST_CENTRE = 0.3
"""Lower limit of a peak: a point between four pixels has a peak of 0.37 for a standard deviation of 0.5 pixels."""


def find_centres(target: Tensor) -> Tensor:
    """Return where points are: pixels that are the highest of their 3x3 neighbourhood, bool ``(B, K, h, w)``."""
    highest = F.max_pool2d(target, 3, stride=1, padding=1)
    return (target == highest) & (target >= _LOWEST_CENTRE)


def penalty_reduced_focal(logits: Tensor, target: Tensor) -> Tensor:
    """CenterNet's focal loss (Zhou et al. 2019; Law & Deng 2018), per point: near a point, false peaks cost less.

    CenterNet uses pixels of exactly 1 as centres. This function uses the peaks, because resized targets have no pixel
    of exactly 1.
    """
    centre = find_centres(target).float()
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = log_p.exp()
    positive = centre * (1 - p) ** 2 * log_p
    negative = (1 - centre) * (1 - target) ** 4 * p**2 * log_q
    return -(positive + negative).sum() / centre.sum().clamp(min=1)


def count_error(prediction: Tensor, target: Tensor, scale: float) -> Tensor:
    """Mean over images and channels of the absolute error of the count, in units of ``scale``."""
    return (prediction.sum((2, 3)) - target.sum((2, 3))).abs().mean() / scale
