"""Image to image metrics, means over pictures; values in [0, 1]."""

import torch
from torch import Tensor

from densemble.metrics.base import MetricValues
from densemble.metrics.structural_similarity import similarity_map

LEAST_ERROR = 1e-10


class ImageMetrics:
    """``psnr ssim mae``: peak signal-to-noise ratio in dB for a data range of 1, structural similarity (Wang et al.
    2004) over windows without an invalid pixel, mean absolute error.

    A picture that is met exactly has a PSNR of 100 dB, for a mean cannot hold infinity. ``None`` where no picture has
    a valid pixel, or no whole window.
    """

    def __init__(self) -> None:
        self._sums = {"psnr": 0.0, "ssim": 0.0, "mae": 0.0}
        self._counts = {"psnr": 0, "ssim": 0, "mae": 0}

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: values ``(K, H, W)``, targets ``(K, H, W)``, NaN is invalid."""
        p, t = prediction.double(), target.double()
        valid = torch.isfinite(t)
        if not valid.any():
            return
        t = torch.where(valid, t, 0.0)
        error = (p - t)[valid]
        self._add("psnr", -10 * torch.log10(error.square().mean().clamp(min=LEAST_ERROR)))
        self._add("mae", error.abs().mean())
        similarity, whole = similarity_map(p[None], t[None], valid[None])
        if whole.any():
            self._add("ssim", similarity[whole].mean())

    def _add(self, key: str, value: Tensor) -> None:
        self._sums[key] += float(value)
        self._counts[key] += 1

    def compute(self) -> MetricValues:
        """Means over pictures."""
        return {key: total / self._counts[key] if self._counts[key] else None for key, total in self._sums.items()}
