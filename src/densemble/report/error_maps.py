"""Error maps: where a prediction differs from its target, and in which direction."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from densemble.inference.drawing import NO_DATA, Bar, Drawing, Legend, Meaning, blend
from densemble.shapes import Array

DIFFERENCE = "difference"
"""Name of the colours of differences: blue below 0, near black at 0, orange above."""
_STOPS = np.array([(165, 222, 255), (38, 118, 210), (18, 18, 22), (214, 92, 10), (255, 208, 130)], np.float32)
_WRONG = (225, 87, 0)
_DIMMED = 0.6
_WRONG_OPACITY = 0.85


def difference_colours(values: Array, most: float) -> Array:
    """Values ``(...)`` -> uint8 ``(..., 3)``: colours from ``-most`` to ``most``."""
    share = np.clip((values / max(most, 1e-12) + 1) / 2, 0, 1) * (len(_STOPS) - 1)
    left = np.minimum(share.astype(np.intp), len(_STOPS) - 2)
    part = (share - left)[..., None]
    mixed: Array = (_STOPS[left] * (1 - part) + _STOPS[left + 1] * part).round().astype(np.uint8)
    return mixed


def draw_error(image: Array, maps: Tensor, target_maps: Tensor, valid: Tensor, meaning: Meaning) -> Drawing:
    """Draw the error of a prediction; pixels without a target are grey.

    Wrong classes are orange on a darkened image, the stronger the more classes of a pixel are wrong. Differences of
    values are blue (too low) to orange (too high), up to the 99th percentile of their size.

    Args:
        image: uint8 ``(H, W, 3)``.
        maps: activated maps ``(K, H, W)``.
        target_maps: activated maps that equal the target, ``(K, H, W)``.
        valid: bool ``(1, H, W)`` or ``(K, H, W)``.
        meaning: meaning of the maps.
    """
    known = valid.any(0).numpy()
    if meaning.kind in ("labels", "masks"):
        drawn = _wrong_classes(image, maps, target_maps, valid, meaning.kind == "labels")
    else:
        drawn = _differences(maps, target_maps, valid, meaning)
    if known.all():
        return drawn
    legend = replace(drawn.legend, entries=(*drawn.legend.entries, ("no target", NO_DATA)))
    return Drawing(np.where(known[..., None], drawn.pixels, np.array(NO_DATA, np.uint8)), legend)


def _wrong_classes(image: Array, maps: Tensor, target_maps: Tensor, valid: Tensor, labels: bool) -> Drawing:
    if labels:
        wrong = (maps.argmax(0) != target_maps.argmax(0)).float()[None]
    else:
        wrong = ((maps >= 0.5) != (target_maps >= 0.5)).float()
    wrong = wrong * valid
    counted = valid.expand_as(wrong).sum()
    share = float(wrong.sum() / counted.clamp(min=1))
    grey = image.mean(2, keepdims=True).repeat(3, 2).round().astype(np.uint8)
    dark = blend(grey, np.zeros_like(grey), _DIMMED)
    colours = np.broadcast_to(np.array(_WRONG, np.uint8), image.shape)
    opacity = (wrong.amax(0) * _WRONG_OPACITY).numpy()
    of = "pixels" if labels else "values"
    return Drawing(blend(dark, colours, opacity), Legend(((f"{share:.1%} of {of} wrong", _WRONG),)))


def _differences(maps: Tensor, target_maps: Tensor, valid: Tensor, meaning: Meaning) -> Drawing:
    maps, target_maps = maps.float(), target_maps.float()
    label = f"error ({meaning.value_unit})" if meaning.value_unit else "error"
    if meaning.kind == "heat" and len(maps) == 1:  # metrics of saliency ignore the scale of a map
        maps, target_maps = (each / each.max().clamp(min=1e-12) for each in (maps, target_maps))
        label = "error, both maps scaled to 1"
    change = torch.where(valid, maps - target_maps, 0.0)
    largest = change.abs().argmax(0, keepdim=True)
    values = (change.mean(0) if meaning.kind == "pixels" else change.gather(0, largest)[0]).numpy()
    known = valid.any(0).numpy()
    most = float(np.percentile(np.abs(values[known]), 99)) if known.any() else 0.0
    most = most or float(np.abs(values).max())
    if most == 0:
        return Drawing(np.full((*values.shape, 3), NO_DATA, np.uint8), Legend(note="no error at any pixel"))
    return Drawing(difference_colours(values, most), Legend(bar=Bar(label, -most, most, DIFFERENCE)))
