"""Antialiased bilinear resizing of images, as an operation of PyTorch or as two matrix products."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.nets.symbolic import int_max
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

    Distances are computed in integers, so that they are exact for large images too.
    """
    centre = (2 * torch.arange(to_pixels, device=images.device)[:, None] + 1) * pixels
    distance = ((2 * torch.arange(pixels, device=images.device) + 1) * to_pixels - centre).abs()
    weights: Tensor = (1 - distance.to(images.dtype) / (2 * int_max(pixels, to_pixels))).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
