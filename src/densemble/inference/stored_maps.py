"""Conversion of maps to the arrays in files: integers if the training maps were integers, and a no-data value."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.shapes import Array
from densemble.tasks import Task


def stored(kind: str, maps: Mapping[str, Tensor], task: Task, valid: Array | None = None) -> Array:
    """Content of a kind of file for an image or some of its rows, ``(H, W)`` or ``(K, H, W)``.

    Args:
        kind: ``map``: labels as uint8 (uint16 for more than 256), or :func:`stored_maps`; ``npy``: the mean as float32
            ``(K, H, W)``; ``guarantee``: 0 or 255 for each class, or the ends of the interval, ``(2K, H, W)``;
            ``uncertainty``: entropy in nats, or standard deviation over the members, see :attr:`Task.uncertainty`.
        maps: at least those that the kind needs (:data:`densemble.inference.file_kinds.SAVE`), without the batch axis.
        task: task of the maps.
        valid: bool ``(H, W)``, where there is data; other pixels hold :func:`no_data`. ``None``: everywhere.
    """
    if kind == "map" and "label" in maps:
        numbers = task.out_channels + (valid is not None)
        array: Array = maps["label"].cpu().numpy().astype(np.uint8 if numbers <= 256 else np.uint16)
    elif kind == "map":
        array = stored_maps(maps["mean"].cpu().numpy(), task)
        array = array[0] if len(array) == 1 else array
    elif kind == "guarantee" and "included" in maps:
        array = maps["included"].cpu().numpy().astype(np.uint8) * 255
    else:
        array = _float_maps(kind, maps, task).cpu().numpy().astype(np.float32)
    return array if valid is None else with_no_data(array, valid, no_data(array.dtype, task, kind))


def _float_maps(kind: str, maps: Mapping[str, Tensor], task: Task) -> Tensor:
    if kind == "guarantee":
        return torch.cat([maps["lower"], maps["upper"]])
    if kind == "uncertainty":
        return maps["entropy"] if task.uncertainty == "entropy" else maps["variance"].mean(0).sqrt()
    return maps["mean"]


def stored_maps(maps: Array, task: Task) -> Array:
    """Convert activated maps ``(K, ...)`` to their values in files.

    Returns:
        Probabilities, heat and pixels as 0..255 uint8; values in the unit of the training maps, uint16 if those were
        integers, else float32; densities float32. The same shape.
    """
    if task.target_kind == "values":
        values: Array = (maps / task.file_scale).astype(np.float32)
        return values.round().clip(0, 65535).astype(np.uint16) if task.whole else values
    if task.target_kind == "density":
        return maps.astype(np.float32)
    whole: Array = (maps * 255).round().clip(0, 255).astype(np.uint8)
    return whole


def no_data(dtype: np.dtype[Any], task: Task, kind: str = "map") -> float:
    """The number that marks missing data in a kind of file.

    NaN for floats; the largest number of the type for labels; 127 for guaranteed sets, which hold 0 and 255; else 0, as
    in the training maps, or 65535 if 0 is a value.
    """
    if dtype.kind == "f":
        return float("nan")
    if kind == "guarantee":
        return 127.0
    unsigned_values = task.target_kind == "values" and task.invalid_below is None
    return float(np.iinfo(dtype).max) if task.target_kind == "labels" or unsigned_values else 0.0


def with_no_data(stored: Array, valid: Array, value: float) -> Array:
    """Set stored maps ``(..., H, W)`` to ``value`` where ``valid`` ``(H, W)`` is false, and nowhere else.

    A valid number that equals ``value`` becomes the next number.
    """
    if stored.dtype.kind != "f":
        neighbour = stored.dtype.type(1 if value == 0 else value - 1)
        stored = np.where(stored == value, neighbour, stored)
    return np.where(valid, stored, stored.dtype.type(value))
