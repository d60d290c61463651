"""Structural dissimilarity as a loss."""

from torch import Tensor

from densemble.metrics.structural_similarity import similarity_map
from densemble.tasks.losses.masked import masked_mean


def structural_dissimilarity(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - SSIM of pixels in [0, 1] ``(B, K, h, w)`` (Wang et al. 2004) over windows without an invalid pixel."""
    similarity, whole = similarity_map(prediction, target, valid)
    return masked_mean(1 - similarity, whole)
