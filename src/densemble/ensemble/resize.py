"""Resizing of predicted maps."""

import torch.nn.functional as F
from torch import Tensor

from densemble.shapes import Size, size_of
from densemble.tasks import Task


def resize_maps(maps: Tensor, size: Size, density: bool = False, antialias: bool = False) -> Tensor:
    """Activated maps ``(B, K, h, w)`` -> ``(B, K, H, W)``, bilinear.

    Args:
        size: (H, W).
        density: values are counts per pixel: they shrink as pixels become more, so that the sum stays.
        antialias: where maps become smaller.
    """
    if maps.shape[-2:] == size:
        return maps
    resized = F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return resized * (maps.shape[-2] * maps.shape[-1] / (size[0] * size[1])) if density else resized


def resize_to_target(maps: Tensor, target: Tensor, task: Task) -> Tensor:
    """Activated maps of a task ``(B, K, h, w)`` at the size of a target ``(..., H, W)``."""
    return resize_maps(maps, size_of(target), task.target_kind == "density")
