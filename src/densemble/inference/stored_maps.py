"""Maps as they are stored: whole numbers wherever the training maps were whole, and a value where nothing is known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval
from densemble.shapes import Array
from densemble.tasks import Task


def required_maps(kind: str, ensemble: Ensemble) -> tuple[str, ...]:
    """Names of the maps of a prediction that a kind of file shows."""
    if kind in ("map", "overlay"):
        return ("label",) if ensemble.task.distribution == "categorical" else ("mean",)
    if kind == "uncertainty":
        return ("variance",) if ensemble.task.distribution == "none" else ("entropy",)
    if kind == "guarantee":
        return ("lower", "upper") if isinstance(ensemble.guarantee, ConformalInterval) else ("included",)
    return ("mean",)


def stored(kind: str, maps: Mapping[str, Tensor], task: Task, gaps: bool = False) -> Array:
    """What a kind of file shows of an image or of some of its rows, ``(H, W)`` or ``(K, H, W)``.

    Args:
        kind: ``map``: labels or :func:`stored_maps`; ``npy``: the mean as float32 ``(K, H, W)``; ``guarantee``: 0 or
            255 for each class, or the ends of the interval, ``(2K, H, W)``; ``uncertainty``: entropy in nats, or
            standard deviation of values.
        maps: at least :func:`required_maps`, without the batch axis.
        task: what the maps mean.
        gaps: some pixels hold no data, for which labels leave a number.
    """
    if kind == "map" and "label" in maps:
        return stored_labels(maps["label"].cpu().numpy(), task.out_channels + gaps)
    if kind == "map":
        whole = stored_maps(maps["mean"].cpu().numpy(), task)
        return whole[0] if len(whole) == 1 else whole
    if kind == "guarantee" and "included" in maps:
        return maps["included"].cpu().numpy().astype(np.uint8) * 255
    if kind == "guarantee":
        shown = torch.cat([maps["lower"], maps["upper"]])
    elif kind == "uncertainty":
        shown = maps["entropy"] if "entropy" in maps else maps["variance"].mean(0).sqrt()
    else:
        shown = maps["mean"]
    array: Array = shown.cpu().numpy().astype(np.float32)
    return array


def stored_labels(labels: Array, classes: int) -> Array:
    """Labels of any shape as uint8, of more than 256 classes as uint16."""
    return labels.astype(np.uint8 if classes <= 256 else np.uint16)


def stored_maps(maps: Array, task: Task) -> Array:
    """Activated maps ``(K, ...)`` as they are stored.

    Returns:
        Probabilities, heat and pixels as 0..255 uint8; values in the training maps' own unit, uint16 where those were
        whole numbers, else float32; densities float32. The same shape.
    """
    if task.target_kind == "values":
        own: Array = (maps / task.file_scale).astype(np.float32)
        return own.round().clip(0, 65535).astype(np.uint16) if task.whole else own
    if task.target_kind == "density":
        return maps.astype(np.float32)
    whole: Array = (maps * 255).round().clip(0, 255).astype(np.uint8)
    return whole


def no_data(dtype: np.dtype[Any], task: Task, guarantee: bool = False) -> float:
    """The number that stands for no data in stored maps: NaN; of labels the largest of their type; else 0, as in the
    training maps, or 65535 where 0 is a value; of sets, which are 0 and 255, 127."""
    if dtype.kind == "f":
        return float("nan")
    if guarantee:
        return 127.0
    unsigned_values = task.target_kind == "values" and task.invalid_below is None
    return float(np.iinfo(dtype).max) if task.target_kind == "labels" or unsigned_values else 0.0


def with_no_data(stored: Array, valid: Array, value: float) -> Array:
    """Stored maps ``(..., H, W)`` that hold ``value`` where ``valid`` ``(H, W)`` is false, and nowhere else.

    A known number that equals it becomes its neighbour.
    """
    if stored.dtype.kind != "f":
        neighbour = stored.dtype.type(1 if value == 0 else value - 1)
        stored = np.where(stored == value, neighbour, stored)
    return np.where(valid, stored, stored.dtype.type(value))
