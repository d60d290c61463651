"""Metrics of predicted images with values in [0, 1], as means over images."""

import torch
from torch import Tensor

from densemble.metrics.metric import Metric, Objective, ScoredImage, counted, mean, no_statistics
from densemble.metrics.structural_similarity import similarity_map

LEAST_ERROR = 1e-10
"""Lower limit of the mean squared error, so that the PSNR is at most 100 dB."""


class ImageMetrics(Metric):
    """``psnr ssim mae`` of images with targets ``(K, H, W)``; NaN is invalid.

    Peak signal-to-noise ratio in dB for a data range of 1; structural similarity (Wang et al. 2004) over windows
    without an invalid pixel; mean absolute error.

    An exactly predicted image has a PSNR of 100 dB, because a mean cannot contain infinity. A metric is ``None`` if no
    image has a valid pixel, or a complete window.
    """

    def __init__(self) -> None:
        super().__init__(
            Objective("psnr", True, _signal_to_noise, mean),
            Objective("ssim", True, _similarity, mean),
            Objective("mae", False, _absolute, mean),
        )


def _errors(image: ScoredImage) -> Tensor:
    """Return differences float64 ``(M, N)`` at the valid pixels of the target."""
    valid = torch.isfinite(image.target)
    return image.maps[:, valid].double() - image.target[valid].double()


def _signal_to_noise(image: ScoredImage) -> Tensor:
    errors = image.once(_errors)
    if not errors.shape[1]:
        return no_statistics(image)
    return counted(-10 * torch.log10(errors.square().mean(1).clamp(min=LEAST_ERROR)), 1)


def _absolute(image: ScoredImage) -> Tensor:
    errors = image.once(_errors)
    return counted(errors.abs().mean(1), 1) if errors.shape[1] else no_statistics(image)


def _similarity(image: ScoredImage) -> Tensor:
    valid = torch.isfinite(image.target)
    known = torch.where(valid, image.target, 0.0).double().expand(image.maps.shape)
    similarity, complete = similarity_map(image.maps.double(), known, valid[None])
    windows = int(complete[0].sum())
    return counted((similarity * complete).sum((1, 2, 3)) / windows, 1) if windows else no_statistics(image)
