"""Structural similarity of images (Wang et al. 2004, "Image quality assessment: from error visibility to SSIM")."""

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # for values in [0, 1]


def similarity_map(a: Tensor, b: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM of each window inside the image, Gaussian of 11x11 pixels and sigma 1.5; differentiable.

    An image that is smaller than the window gets a smaller window.

    Args:
        a: values in [0, 1] ``(B, K, h, w)``.
        b: finite values of the same shape.
        valid: bool, broadcastable to both.

    Returns:
        SSIM ``(B, K, h - 10, w - 10)``, and whether all pixels of the window are valid, of the same shape.
    """
    size = _window_size(a.shape[-2], a.shape[-1])
    mean_a, mean_b, square_a, square_b, product = _blur(torch.stack([a, b, a * a, b * b, a * b]), size)
    variance = square_a - mean_a**2 + square_b - mean_b**2
    covariance = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance + _C2)
    invalid = (~valid).expand_as(a).to(a.dtype)
    return luminance * structure, F.max_pool2d(invalid, size, stride=1) == 0


def _window_size(height: int, width: int) -> int:
    size = min(_WINDOW, height, width)
    return size if size % 2 else size - 1


def _blur(stack: Tensor, size: int) -> Tensor:
    """Gaussian filter of ``size`` x ``size`` without padding, ``(..., h, w)``; first vertical, then horizontal."""
    offsets = torch.arange(size, dtype=stack.dtype, device=stack.device) - size // 2
    kernel = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    # As channels of one image: on a CPU this is five times faster than as images of one channel.
    flat = stack.reshape(1, -1, *stack.shape[-2:])
    channels = flat.shape[1]
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    flat = F.conv2d(flat, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return flat.view(*stack.shape[:-2], *flat.shape[-2:])
