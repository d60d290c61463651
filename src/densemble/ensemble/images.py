"""Images in memory, of any usual form, as the networks take them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.errors import UsageError


def as_images(images: Tensor | np.ndarray[Any, Any], channels: int = 3) -> Tensor:
    """One image or a batch, tensor (channels first) or array (channels last) -> float ``(B, C, H, W)`` in [0, 1].

    Raises:
        UsageError: another shape, another type, or float values outside [0, 1].
    """
    remedy = "convert it to RGB" if channels == 3 else f"give {channels} channels"
    c = channels
    if isinstance(images, np.ndarray):
        array = np.array(images)
        if array.ndim not in (3, 4) or array.shape[-1] != c:
            raise UsageError(f"an array must be (H, W, {c}) or (B, H, W, {c}), got {array.shape}; {remedy}")
        tensor = torch.from_numpy(array).movedim(-1, -3)
    else:
        tensor = images
    if tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim != 4 or tensor.shape[1] != c:
        raise UsageError(f"a tensor must be ({c}, H, W) or (B, {c}, H, W), got {tuple(images.shape)}; {remedy}")
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    if not tensor.is_floating_point():
        raise UsageError(f"images must be uint8, or float in [0, 1], got {tensor.dtype}")
    low, high = (float(value) for value in tensor.aminmax()) if tensor.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise UsageError(f"float images must be in [0, 1], got values from {low:g} to {high:g}; divide by 255?")
    return tensor.float()
