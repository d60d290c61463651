"""Antialiased bilinear resizing of images, as an operation of PyTorch or as two matrix products."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.shapes import Size, size_of


def resize_images(images: Tensor, size: Size) -> Tensor:
    """Resize images ``(B, C, H, W)`` to (h, w) = ``size``: bilinear, with a filter if they become smaller.

    Exported graphs compute the same with two matrix products: OpenVINO and TensorRT do not have the operation.
    """
    if not torch.compiler.is_exporting():
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    (height, width), (to_height, to_width) = size_of(images), size
    rows = _filter(height, to_height, images)
    columns = _filter(width, to_width, images)
    return rows @ images @ columns.T


def _filter(pixels: int, to_pixels: int, images: Tensor) -> Tensor:
    """Weight of each pixel in each resized pixel, ``(to_pixels, pixels)``: a triangle around its centre.

    The steps in float32 are those of PyTorch: its rounding moves centres by up to 1e-4 pixels, and networks amplify it.
    """
    ratio = torch.scalar_tensor(pixels, device=images.device) / torch.scalar_tensor(to_pixels, device=images.device)
    centre = ratio * (torch.arange(to_pixels, device=images.device)[:, None] + 0.5)
    distance = (torch.arange(pixels, device=images.device) - centre + 0.5) * (1 / ratio.clamp(min=1))
    weights = (1 - distance.abs()).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(images.dtype)
