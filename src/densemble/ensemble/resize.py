"""Resizing of predicted maps."""

from torch import Tensor

from densemble.nets.resizing import resize_exactly
from densemble.shapes import Size, is_size, size_of
from densemble.tasks import Task


def resize_maps(maps: Tensor, size: Size, density: bool = False, antialias: bool = False) -> Tensor:
    """Resize activated maps ``(B, K, h, w)`` to ``(B, K, H, W)``, bilinear.

    Args:
        maps: maps to resize.
        size: (H, W).
        density: whether values are counts per pixel; they are scaled so that the sum of the map stays.
        antialias: whether to filter maps that become smaller.
    """
    if is_size(maps, size):
        return maps
    resized = resize_exactly(maps, size, antialias)
    return resized * (maps.shape[-2] * maps.shape[-1] / (size[0] * size[1])) if density else resized


def resize_to_target(maps: Tensor, target: Tensor, task: Task) -> Tensor:
    """Resize activated maps of a task ``(B, K, h, w)`` to the size of a target ``(..., H, W)``."""
    return resize_maps(maps, size_of(target), task.target_kind == "density")
