"""Augmentation: picture and map are moved together, by one affine map in relative coordinates.

One map for both keeps them aligned to a fraction of a pixel even though their sizes differ (240x320 and 48x64).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Strength of the random changes.

    Attributes:
        flip: probability of a horizontal flip.
        zoom: largest relative enlargement; the frame is then a random window of the picture.
        rotation: largest rotation in degrees.
        colour: largest relative change of brightness, contrast and saturation.
    """

    flip: float
    zoom: float
    rotation: float
    colour: float


AUGMENT: dict[str, Augmentation] = {
    "none": Augmentation(0.0, 0.0, 0.0, 0.0),
    "light": Augmentation(0.5, 0.0, 0.0, 0.15),
    "strong": Augmentation(0.5, 0.6, 5.0, 0.3),
}
"""Preset by name. ``light`` keeps the frame, for what people look at depends on it."""


def augment(
    image: Tensor, target: Tensor, how: Augmentation, key: tuple[int, int, int], fill: float
) -> tuple[Tensor, Tensor]:
    """A random change of one sample, always the same for the same key.

    Args:
        image: float ``(3, H, W)`` in [0, 1].
        target: ``(h, w)``, float or integer labels.
        how: strength.
        key: (seed, epoch, index).
        fill: value of the map where the frame leaves the picture.

    Returns:
        Image and target of the same shapes and types.
    """
    random = np.random.default_rng(key)
    flip = bool(random.random() < how.flip)
    scale = 1 / (1 + how.zoom * random.random())
    angle = math.radians(how.rotation) * random.uniform(-1, 1)
    shift = random.uniform(-1, 1, 2) * (1 - scale)
    colour = 1 + how.colour * random.uniform(-1, 1, 3)
    if scale != 1 or angle:
        theta = _affine(scale, angle, shift, image.shape[-1] / image.shape[-2])
        image = _warp(image, theta, "bilinear")
        target = _warp_target(target, theta, fill)
    if flip:
        image, target = image.flip(-1), target.flip(-1)
    return (_recolour(image, colour) if how.colour else image), target


def _affine(scale: float, angle: float, shift: np.ndarray[Any, Any], aspect: float) -> Tensor:
    """Output -> input coordinates in [-1, 1]; ``aspect`` keeps a rotation from shearing oblong pictures."""
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    return torch.tensor([[c, -s / aspect, float(shift[0])], [s * aspect, c, float(shift[1])]])


def _warp(x: Tensor, theta: Tensor, mode: str, padding: str = "border") -> Tensor:
    grid = F.affine_grid(theta[None].to(x.dtype), [1, *x.shape], align_corners=False)
    return F.grid_sample(x[None], grid, mode=mode, padding_mode=padding, align_corners=False)[0]


def _warp_target(target: Tensor, theta: Tensor, fill: float) -> Tensor:
    whole = not target.is_floating_point()
    values = target.double()[None]
    inside = _warp(torch.ones_like(values), theta, "nearest", "zeros") > 0.5
    # Labels and depths are taken as they are: a mixture of two of them is neither.
    moved = _warp(values, theta, "nearest")
    moved = torch.where(inside, moved, torch.full_like(moved, fill))[0]
    return moved.round().to(target.dtype) if whole else moved.to(target.dtype)


def _recolour(image: Tensor, colour: np.ndarray[Any, Any]) -> Tensor:
    brightness, contrast, saturation = (float(value) for value in colour)
    image = image * brightness
    image = (image - image.mean()) * contrast + image.mean()
    grey = image.mean(0, keepdim=True)
    return (grey + (image - grey) * saturation).clamp(0, 1)
