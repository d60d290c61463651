"""Structural dissimilarity as a loss."""

from torch import Tensor

from densemble.metrics.structural_similarity import similarity_map
from densemble.tasks.losses.masked import masked_mean


def structural_dissimilarity(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute 1 - SSIM (Wang et al. 2004) of pixels in [0, 1] ``(B, K, h, w)``, over windows without invalid pixels."""
    similarity, complete = similarity_map(prediction, target, valid)
    return masked_mean(1 - similarity, complete)
