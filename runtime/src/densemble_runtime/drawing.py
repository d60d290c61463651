"""Drawings of maps over images, in the colours of densemble: arrays in, uint8 RGB ``(H, W, 3)`` out."""

import colorsys
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

from densemble_runtime.images import Array

_COLOUR_MAPS = ("viridis", "inferno", "magma")
"""Rows of colour_maps.png: colour maps of matplotlib (CC0), 256 colours each."""


@cache
def _colour_table(name: str) -> Array:
    with (files("densemble_runtime") / "colour_maps.png").open("rb") as file, Image.open(file) as image:
        table: Array = np.asarray(image)[_COLOUR_MAPS.index(name)]
    return table


def palette(classes: int) -> Array:
    """Distinct colours, uint8 ``(classes, 3)``: hues a golden angle apart, in two brightnesses."""
    colours = [
        colorsys.hsv_to_rgb((0.61 + i * 0.381966) % 1, 0.55 + 0.35 * (i % 2), 0.95 - 0.3 * ((i // 2) % 2))
        for i in range(classes)
    ]
    return (np.array(colours).reshape(classes, 3) * 255).round().astype(np.uint8)


def colour_values(values: Array, low: float, high: float, name: str) -> Array:
    """Colour values ``(H, W)`` by a colour map from ``low`` to ``high``."""
    table = _colour_table(name)
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    rgb: Array = table.take(np.minimum((share * len(table)).astype(np.intp), len(table) - 1), axis=0)
    return rgb


def as_rgb(image: Array) -> Array:
    """Pixels ``(H, W, C)`` -> uint8 RGB: the first three channels, or the first one as grey."""
    rgb = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if rgb.dtype.kind == "u":
        rgb = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
    pixels: Array = (rgb * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def _blend(image: Array, colours: Array, opacity: Array | float) -> Array:
    share = np.asarray(opacity, dtype=np.float32)
    share = share[..., None] if share.ndim == 2 else share
    blended: Array = (image * (1 - share) + colours * share).round().astype(np.uint8)
    return blended


def draw_map(image: Array, maps: Array, kind: str, label: Array | None) -> Array:
    """Draw a map over its image.

    Args:
        image: uint8 ``(H, W, 3)``.
        maps: activated maps ``(K, H, W)``.
        kind: target kind of the task: labels, values, masks, pixels, heat or density.
        label: classes ``(H, W)``, for labels.
    """
    if kind == "pixels":
        return as_rgb(np.nan_to_num(np.moveaxis(maps, 0, -1)))
    if kind == "labels" and label is not None:
        return _blend(image, palette(len(maps)).take(label, axis=0), 0.55)
    if kind == "values":
        finite = maps[0][np.isfinite(maps[0])]
        low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
        return _blend(image, colour_values(np.nan_to_num(maps[0]), float(low), float(high), "viridis"), 0.7)
    if kind == "masks":
        mixed = np.einsum("khw,kc->hwc", maps, palette(len(maps)).astype(np.float32))
        mixed = (mixed / np.maximum(maps.sum(0), 1e-6)[..., None]).round().clip(0, 255).astype(np.uint8)
        return _blend(image, mixed, np.clip(maps.max(0), 0, 1) * 0.6)
    share = maps.max(0) / max(float(maps.max()), 1e-12)
    return _blend(image, colour_values(share, 0, 1, "inferno"), np.clip(share * 1.2, 0, 0.75))
