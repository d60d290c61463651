"""Bilinear resizing of images and predicted maps, which exported graphs compute with the same rounding.

Runtimes place the pixels of a resized map in other ways than PyTorch: rounding in float32 moves them by up to 1e-4
pixels, which networks and steep edges amplify. In a graph, these functions are therefore the steps of PyTorch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.shapes import Size, is_size, size_of


def resize_exactly(x: Tensor, size: Size, antialias: bool) -> Tensor:
    """Resize ``(B, C, H, W)`` bilinearly to (h, w) = ``size``; return the same tensor if it has this size already.

    Args:
        x: images or maps.
        size: (h, w).
        antialias: whether to filter what becomes smaller.
    """
    if is_size(x, size):
        return x
    if not torch.compiler.is_exporting():
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return _filtered(x, size) if antialias else _interpolated(x, size)


def _interpolated(x: Tensor, size: Size) -> Tensor:
    """Gather the two nearest rows and columns of each resized pixel."""
    for axis, pixels, to_pixels in zip((-2, -1), size_of(x), size, strict=True):
        # In double precision, because PyTorch rounds the product and the difference once (a fused operation).
        centres = torch.arange(to_pixels, dtype=torch.float64, device=x.device) + 0.5
        position = (_ratio(pixels, to_pixels, x) * centres - 0.5).float().clamp(min=0)
        before = position.long()
        after = (before + 1).clamp(max=pixels - 1)
        share = (position - before).to(x.dtype)
        share = share[:, None] if axis == -2 else share
        x = (1 - share) * x.index_select(axis, before) + share * x.index_select(axis, after)
    return x


def _filtered(x: Tensor, size: Size) -> Tensor:
    """Multiply by a matrix for the rows and another for the columns."""
    rows, columns = (_filter(pixels, to_pixels, x) for pixels, to_pixels in zip(size_of(x), size, strict=True))
    return rows @ x @ columns.T


def _filter(pixels: int, to_pixels: int, x: Tensor) -> Tensor:
    """Weight of each pixel in each resized pixel, ``(to_pixels, pixels)``: a triangle around its centre."""
    ratio = _ratio(pixels, to_pixels, x)
    centre = ratio * (torch.arange(to_pixels, device=x.device)[:, None] + 0.5)
    distance = (torch.arange(pixels, device=x.device) - centre + 0.5) * (1 / ratio.clamp(min=1))
    weights = (1 - distance.abs()).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(x.dtype)


def _ratio(pixels: int, to_pixels: int, x: Tensor) -> Tensor:
    return torch.scalar_tensor(pixels, device=x.device) / torch.scalar_tensor(to_pixels, device=x.device)
