"""Kinds of targets: how a map is resized, and how points become maps."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.shapes import Array, Size
from densemble.tasks.task import TargetKind

DTYPES: dict[TargetKind, type[np.generic]] = {
    "labels": np.uint8,
    "masks": np.uint8,
    "heat": np.float32,
    "density": np.float32,
    "values": np.float32,
    "pixels": np.float32,
}
"""How a kind is kept on disk; labels above 255 are kept as 16 bits."""
_SPREADS = 4
"""A Gaussian is drawn as far as this many standard deviations."""


def resize_target(target: Tensor, size: Size, kind: TargetKind) -> Tensor:
    """A map ``(H, W)`` or ``(K, H, W)`` -> the same type at (h, w).

    Labels, masks and values by the nearest pixel centre: a mixture of two labels is neither, nor is a mean over valid
    and invalid depths. Heat and pixels by area. Density by area too, and scaled so that the sum, which is a count,
    stays.
    """
    old = (int(target.shape[-2]), int(target.shape[-1]))
    if old == size:
        return target
    # Interpolation takes floats only; labels up to 65535 and their float64 images are the same numbers.
    exact = kind in ("labels", "masks", "values")
    values = target.to(torch.float64 if exact else torch.float32)
    values = values[None, None] if target.ndim == 2 else values[None]
    if exact:
        resized = F.interpolate(values, size=size, mode="nearest-exact")
    elif kind == "pixels" and values.isnan().any():
        resized = _without_holes(values, size)
    else:
        resized = F.interpolate(values, size=size, mode="bilinear", antialias=True)
    if kind == "density":
        resized = resized * (values.sum((-2, -1), keepdim=True) / resized.sum((-2, -1), keepdim=True).clamp(min=1e-12))
    elif kind in ("heat", "pixels"):
        resized = resized.clamp(0, 1)
    resized = resized[0, 0] if target.ndim == 2 else resized[0]
    return resized.to(target.dtype)


def _without_holes(values: Tensor, size: Size) -> Tensor:
    """By area over what is valid; NaN where less than half of a pixel's surroundings is."""
    known = ~values.isnan()
    total, weight = (
        F.interpolate(part, size=size, mode="bilinear", antialias=True)
        for part in (torch.where(known, values, 0.0), known.to(values.dtype))
    )
    return torch.where(weight >= 0.5, total / weight.clamp(min=0.5), torch.nan)


def draw_points(points: Array, labels: Array, channels: int, size: Size, sigma: float, density: bool) -> Array:
    """Points as maps.

    Args:
        points: ``(N, 2)`` x, y in pixels of a map of ``size``; those outside are left out.
        labels: ``(N,)`` channel of each.
        channels: K.
        size: (H, W).
        sigma: standard deviation in pixels.
        density: every point adds a Gaussian of sum 1 (Lempitsky & Zisserman 2010); else each is a Gaussian of peak 1,
            of overlapping ones the higher counts, as for keypoints (Zhou et al. 2019).

    Returns:
        float32 ``(K, H, W)``.
    """
    height, width = size
    maps = np.zeros((channels, height, width), np.float32)
    reach = max(int(np.ceil(_SPREADS * sigma)), 1)
    for (x, y), channel in zip(points, labels, strict=True):
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            continue
        top, left = max(round(y) - reach, 0), max(round(x) - reach, 0)
        rows = np.arange(top, min(round(y) + reach + 1, height))[:, None]
        columns = np.arange(left, min(round(x) + reach + 1, width))[None]
        blob = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        place = maps[channel, top : top + blob.shape[0], left : left + blob.shape[1]]
        if density:
            place += blob / max(blob.sum(), 1e-12)  # what would fall outside the frame stays inside: a count is kept
        else:
            np.maximum(place, blob, out=place)
    return maps
