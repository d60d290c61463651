"""Resizes targets of each kind, and draws points as maps."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.shapes import Array, Size, size_of
from densemble.tasks.task import TargetKind

DTYPES: dict[TargetKind, type[np.generic]] = {
    "labels": np.uint8,
    "masks": np.uint8,
    "heat": np.float32,
    "density": np.float32,
    "values": np.float32,
    "pixels": np.float32,
}
"""Data type of each kind in the cache; labels above 255 are stored as 16 bits."""
_SPREADS = 4
"""Radius of a drawn Gaussian, in standard deviations."""


def resize_target(target: Tensor, size: Size, kind: TargetKind) -> Tensor:
    """Resizes a target ``(H, W)`` or ``(K, H, W)`` to (h, w) and keeps its data type.

    Labels, masks and values take the nearest pixel centre, because means of labels, or of valid and invalid depths,
    have no meaning. Heat and pixels are averaged by area. Densities are averaged by area and scaled so that their
    sum, which is a count, does not change.
    """
    if size_of(target) == size:
        return target
    # Interpolation needs floats; float64 represents labels up to 65535 exactly.
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
    """Resizes by area over the valid pixels; NaN where less than half of the area is valid."""
    known = ~values.isnan()
    total, weight = (
        F.interpolate(part, size=size, mode="bilinear", antialias=True)
        for part in (torch.where(known, values, 0.0), known.to(values.dtype))
    )
    return torch.where(weight >= 0.5, total / weight.clamp(min=0.5), torch.nan)


def draw_points(points: Array, labels: Array, channels: int, size: Size, sigma: float, density: bool) -> Array:
    """Draws points as maps.

    Args:
        points: ``(N, 2)`` x, y in pixels of a map of ``size``; points outside are ignored.
        labels: ``(N,)`` channel of each point.
        channels: K.
        size: (H, W).
        sigma: standard deviation in pixels.
        density: if true, every point adds a Gaussian of sum 1 (Lempitsky & Zisserman 2010); else every point is a
            Gaussian of peak 1, and overlapping Gaussians take the maximum, as for keypoints (Zhou et al. 2019).

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
        region = maps[channel, top : top + blob.shape[0], left : left + blob.shape[1]]
        if density:
            region += blob / max(blob.sum(), 1e-12)  # normalized inside the map, so that the sum is the count
        else:
            np.maximum(region, blob, out=region)
    return maps
