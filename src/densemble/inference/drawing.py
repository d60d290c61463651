"""Maps as pictures: arrays in, uint8 RGB arrays out."""

import colorsys
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def palette(classes: int) -> Array:
    """Distinct colours, uint8 ``(classes, 3)``: hues a golden angle apart, in two brightnesses."""
    colours = [
        colorsys.hsv_to_rgb((0.61 + i * 0.381966) % 1, 0.55 + 0.35 * (i % 2), 0.95 - 0.3 * ((i // 2) % 2))
        for i in range(classes)
    ]
    return (np.array(colours).reshape(classes, 3) * 255).round().astype(np.uint8)


def colour_labels(labels: Array, classes: int) -> Array:
    """Labels ``(H, W)`` -> uint8 ``(H, W, 3)``."""
    return palette(classes)[labels]


def colour_values(values: Array, low: float, high: float, colours: str = "viridis") -> Array:
    """Values ``(H, W)`` -> uint8 ``(H, W, 3)``, from ``low`` to ``high`` by a matplotlib colour map."""
    from matplotlib import colormaps

    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    rgb: Array = (colormaps[colours](share)[..., :3] * 255).round().astype(np.uint8)
    return rgb


def blend(image: Array, colours: Array, opacity: Array | float) -> Array:
    """Colours over a picture, both uint8 ``(H, W, 3)``; opacity 0..1, one number or ``(H, W)``."""
    share = np.asarray(opacity, dtype=np.float32)
    share = share[..., None] if share.ndim == 2 else share
    return (image * (1 - share) + colours * share).round().clip(0, 255).astype(np.uint8)


def heat_overlay(image: Array, heat: Array) -> Array:
    """A heat map ``(H, W)`` over its picture: transparent where it is low, scaled to its own maximum."""
    share = heat / max(float(heat.max()), 1e-12)
    return blend(image, colour_values(share, 0, 1, "inferno"), np.clip(share * 1.2, 0, 0.75))
