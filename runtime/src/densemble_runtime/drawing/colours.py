"""Colours of classes and of values."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

from densemble_runtime.drawing.class_table import CLASS_COLOURS
from densemble_runtime.images import Array

BACKGROUND = (0, 0, 0)
"""Colour of the class ``background`` in label maps; overlays leave it out."""
NO_DATA = (128, 128, 128)
"""Colour of pixels without data; no colour map and no class has it."""
_COLOUR_MAPS = ("viridis", "inferno", "magma")
"""Rows of colour_maps.png: colour maps of matplotlib (CC0), 256 colours each."""


def palette(count: int) -> Array:
    """Colours of the first ``count`` classes, uint8 ``(count, 3)``; they repeat after 256."""
    table = np.frombuffer(bytes.fromhex(CLASS_COLOURS), np.uint8).reshape(-1, 3)
    return table.take(np.arange(count) % len(table), axis=0)


def is_background(name: str) -> bool:
    """Whether a class name is ``background``, in upper or lower case."""
    return name.strip().lower() == "background"


def class_colours(classes: Sequence[str]) -> Array:
    """Colours of classes, uint8 ``(K, 3)``: black for the background, the colours of :func:`palette` for the others."""
    background = np.array([is_background(name) for name in classes], bool)
    colours = np.zeros((len(classes), 3), np.uint8)
    colours[background] = BACKGROUND
    colours[~background] = palette(int((~background).sum()))
    return colours


def colour_values(values: Array, low: float, high: float, colours: str = "viridis") -> Array:
    """Values ``(H, W)`` -> uint8 ``(H, W, 3)``: ``viridis``, ``inferno`` or ``magma`` from ``low`` to ``high``."""
    table = _colour_table(colours)
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    rgb: Array = table.take(np.minimum((share * len(table)).astype(np.intp), len(table) - 1), axis=0)
    return rgb


@cache
def _colour_table(name: str) -> Array:
    with (files(__package__) / "colour_maps.png").open("rb") as file, Image.open(file) as image:
        table: Array = np.asarray(image)[_COLOUR_MAPS.index(name)]
    return table


def value_range(values: Array) -> tuple[float, float]:
    """The 1st and the 99th percentile of values, the limits for drawing; 0 and 1 if there are no values."""
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    return float(low), float(high)


def as_rgb(image: Array) -> Array:
    """Pixels ``(H, W, C)``, integers or in [0, 1] -> uint8 ``(H, W, 3)``: the first three channels, or one as grey."""
    rgb = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if rgb.dtype.kind == "u":
        rgb = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
    pixels: Array = (rgb * 255).round().clip(0, 255).astype(np.uint8)
    return pixels
