"""Conversion of images in memory (tensors, arrays, PIL images) to the input of a network."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.errors import UsageError

_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> ``PIL.Image.Transpose`` that turns the image upright."""
_ORIENTATION = 274
MARGIN = 0.5
"""How far values of a module's input may lie outside [0, 1]; normalized photos lie further outside."""


def is_pil(image: Any) -> bool:
    """Whether an object is a PIL image."""
    return hasattr(image, "getexif") and hasattr(image, "convert") and hasattr(image, "transpose")


def _pixels(image: Any, channels: int) -> np.ndarray[Any, Any]:
    """Return the pixels ``(H, W, C)`` of a PIL image, turned upright, as if read from its file.

    Raises:
        UsageError: pixels have more than 8 bits, which PIL would clip.
    """
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    upright = image if turn is None else image.transpose(turn)
    if channels == 3 and upright.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        raise UsageError(
            f"a PIL image of mode {upright.mode} does not have 8 bits per channel; give its file, or an RGB array"
        )
    array = np.array(upright.convert("RGB") if channels == 3 else upright)
    return array[..., None] if array.ndim == 2 else array


def as_images(images: Any, channels: int = 3, keep_bytes: bool = False) -> Tensor:
    """Convert one image or a batch to float ``(B, C, H, W)`` in [0, 1].

    Args:
        images: tensor (channels first), array (channels last), PIL image, or a list of these, all of one size.
        channels: C.
        keep_bytes: leave uint8 as it is; :func:`from_bytes` converts it later.

    Raises:
        UsageError: wrong shape or type, or float values outside [0, 1].
    """
    if isinstance(images, list | tuple):
        return _batch([as_images(image, channels) for image in images])
    if is_pil(images):
        images = _pixels(images, channels)
    if isinstance(images, np.ndarray):
        tensor = _channels_first(images, channels)
    elif isinstance(images, Tensor):
        tensor = images
    else:
        raise UsageError(
            f"images must be a tensor, an array or a PIL image, got a {type(images).__name__}; files and data sets are "
            "read by de.predict(ensemble, source)"
        )
    if tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim != 4 or tensor.shape[1] != channels:
        expected = f"({channels}, H, W) or (B, {channels}, H, W)"
        raise UsageError(f"a tensor must be {expected}, got {tuple(images.shape)}; {_remedy(channels)}")
    if 0 in tensor.shape:
        raise UsageError(f"images of shape {tuple(images.shape)} have no pixels; give at least one image")
    return tensor if keep_bytes and tensor.dtype == torch.uint8 else _unit_floats(tensor)


def from_bytes(images: Tensor) -> Tensor:
    """Convert uint8 to float32 in [0, 1]; floats stay as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _batch(images: list[Tensor]) -> Tensor:
    """Concatenate batches ``(B, C, H, W)`` of one size."""
    if not images:
        raise UsageError("the list of images is empty; give at least one image")
    if len({image.shape[1:] for image in images}) > 1:
        sizes = ", ".join("x".join(str(side) for side in image.shape[2:]) for image in images)
        raise UsageError(f"images of one batch must have one size, got {sizes}; use de.predict, or resize them")
    return torch.cat(images)


def _channels_first(images: np.ndarray[Any, Any], channels: int) -> Tensor:
    """Copy an array ``(..., H, W, C)`` to a tensor ``(..., C, H, W)``."""
    if images.dtype.kind not in "buif" or not images.dtype.isnative:
        raise UsageError(f"images must be uint8, or float in [0, 1], got {images.dtype}; convert them")
    if images.ndim not in (3, 4) or images.shape[-1] != channels:
        expected = f"(H, W, {channels}) or (B, H, W, {channels})"
        raise UsageError(f"an array must be {expected}, got {images.shape}; {_remedy(channels)}")
    return torch.from_numpy(np.array(images)).movedim(-1, -3)


def _remedy(channels: int) -> str:
    return "convert it to RGB" if channels == 3 else f"give {channels} channels"


def _unit_floats(tensor: Tensor) -> Tensor:
    """Convert uint8 to float32 in [0, 1], and check that float values are in that range."""
    if tensor.dtype == torch.uint8:
        return from_bytes(tensor)
    if not tensor.is_floating_point():
        raise UsageError(f"images must be uint8, or float in [0, 1], got {tensor.dtype}; convert them")
    low, high = (float(value) for value in tensor.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise UsageError(f"float images must be in [0, 1], got values from {low:g} to {high:g}; divide by 255?")
    return tensor.float()


def require_tensor(images: Any) -> None:
    """Check the input of a module's ``forward``.

    Values may lie a little outside [0, 1], as after bicubic resizing. Members normalize images themselves, so images
    of 0..255 and normalized images would give wrong maps without an error.

    Raises:
        UsageError: it is not a tensor, or its values are far outside [0, 1].
    """
    if not isinstance(images, Tensor):
        raise UsageError(
            f"images must be a tensor (B, C, H, W) in [0, 1], got {type(images).__name__}; `predict` also takes arrays "
            "and PIL images"
        )
    if not images.is_floating_point() or not images.numel() or images.is_meta:
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if low < -MARGIN or high > 1 + MARGIN:
        remedy = "divide by 255" if low >= 0 else "leave out Normalize, because members normalize images"
        raise UsageError(f"images must be in [0, 1], got values from {low:g} to {high:g}; {remedy}")
