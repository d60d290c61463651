"""Drawing of maps: arrays in, uint8 RGB arrays out."""

import colorsys
from functools import cache

import numpy as np

from densemble.shapes import Array
from densemble.tasks import TargetKind


def palette(classes: int) -> Array:
    """Distinct colours, uint8 ``(classes, 3)``: hues a golden angle apart, in two brightnesses."""
    colours = [
        colorsys.hsv_to_rgb((0.61 + i * 0.381966) % 1, 0.55 + 0.35 * (i % 2), 0.95 - 0.3 * ((i // 2) % 2))
        for i in range(classes)
    ]
    return (np.array(colours).reshape(classes, 3) * 255).round().astype(np.uint8)


def colour_labels(labels: Array, classes: int) -> Array:
    """Labels ``(H, W)`` -> uint8 ``(H, W, 3)``."""
    return palette(classes).take(labels, axis=0)


def colour_values(values: Array, low: float, high: float, colours: str = "viridis") -> Array:
    """Values ``(H, W)`` -> uint8 ``(H, W, 3)``: a matplotlib colour map from ``low`` to ``high``."""
    table = _colour_table(colours)
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    rgb: Array = table.take(np.minimum((share * len(table)).astype(np.intp), len(table) - 1), axis=0)
    return rgb


@cache
def _colour_table(colours: str) -> Array:
    """The colours of a matplotlib colour map, uint8 ``(N, 3)``."""
    from matplotlib import colormaps

    colormap = colormaps[colours]
    table: Array = (colormap(np.arange(colormap.N))[:, :3] * 255).round().astype(np.uint8)
    return table


def as_rgb(image: Array) -> Array:
    """Pixels ``(H, W, C)`` in [0, 1] -> uint8 ``(H, W, 3)``: the first three channels, or the first one as grey."""
    rgb = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    pixels: Array = (rgb * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def value_range(values: Array) -> tuple[float, float]:
    """The 1st and the 99th percentile of values, the limits for drawing; 0 and 1 if there are no values."""
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    return float(low), float(high)


def blend(image: Array, colours: Array, opacity: Array | float) -> Array:
    """Draw colours over an image, both uint8 ``(H, W, 3)``; opacity 0..1, one number or ``(H, W)``."""
    share = np.asarray(opacity, dtype=np.float32)
    share = share[..., None] if share.ndim == 2 else share
    blended = image * (1 - share)
    blended += colours * share
    return blended.round(out=blended).astype(np.uint8)


def heat_overlay(image: Array, heat: Array) -> Array:
    """Draw a heat map ``(H, W)``, scaled to its maximum, over its image; low heat is transparent."""
    share = heat / max(float(heat.max()), 1e-12)
    return blend(image, colour_values(share, 0, 1, "inferno"), np.clip(share * 1.2, 0, 0.75))


def colour_masks(masks: Array) -> tuple[Array, Array]:
    """Masks ``(K, H, W)`` in [0, 1] -> mixed colours of all masks, uint8 ``(H, W, 3)``, and opacity ``(H, W)``."""
    colours = palette(len(masks)).astype(np.float32)
    total = masks.sum(0)
    mixed = np.einsum("khw,kc->hwc", masks, colours) / np.maximum(total, 1e-6)[..., None]
    return mixed.round().clip(0, 255).astype(np.uint8), np.clip(masks.max(0), 0, 1) * 0.6


def draw_map(
    image: Array, maps: Array, kind: TargetKind, label: Array | None = None, valid: Array | None = None
) -> Array:
    """Draw a map of any target kind over its image; returns uint8 ``(H, W, 3)``.

    Args:
        image: uint8 ``(H, W, 3)``.
        maps: activated maps ``(K, H, W)``; for labels only K is used.
        kind: target kind of the maps.
        label: classes ``(H, W)``, for labels.
        valid: bool ``(H, W)``, where the map holds data; elsewhere the image shows. ``None``: everywhere.
    """
    if valid is not None:
        if kind != "labels" or label is None:
            maps = np.where(valid, maps, np.float32(np.nan if kind == "values" else 0))
        return np.where(valid[..., None], draw_map(image, maps, kind, label), image)
    if kind == "pixels":
        return as_rgb(np.nan_to_num(np.moveaxis(maps, 0, -1)))
    if kind == "labels" and label is not None:
        return blend(image, colour_labels(label, len(maps)), 0.55)
    if kind == "values":
        within = value_range(maps[0][np.isfinite(maps[0])])
        return blend(image, colour_values(np.nan_to_num(maps[0]), *within), 0.7)
    if kind == "masks":
        return blend(image, *colour_masks(maps))
    return heat_overlay(image, maps.max(0))
