"""Presets: named sets of run.yaml settings for speed or quality."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from densemble.errors import UsageError, unknown_name
from densemble.shapes import Size

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"pixels": 36_000, "training": {"epochs": 8, "augment": "light", "batch_size": "auto"}},
    "balanced": {
        "pixels": 80_000,
        "training": {"epochs": 20, "augment": "light", "batch_size": "auto", "averaging": "ema", "patience": 8},
    },
    "best": {
        "pixels": 200_000,
        "training": {"epochs": 60, "augment": "strong", "batch_size": "auto", "averaging": "ema", "patience": 20},
        "thorough_loss": True,
    },
}
"""Presets by name: image area in pixels, training settings, and whether to use the task's ``thorough_loss``.

The image size never exceeds that of the data.
"""
MULTIPLE = 8
SMALLEST = 32


class Traits(Protocol):
    """Traits of a task that a preset uses; see :class:`densemble.tasks.Task`."""

    keeps_frame: bool
    thorough_loss: str


def preset_settings(name: str, task: Traits, image: Size) -> dict[str, Any]:
    """Return the run.yaml settings of a preset.

    Args:
        name: row of ``PRESETS``.
        task: value of ``TASKS``; a task whose targets depend on the image frame gets no strong augmentation.
        image: typical (H, W) of the images.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise UsageError(unknown_name("preset", name, PRESETS))
    preset = PRESETS[name]
    training = dict(preset["training"])
    if task.keeps_frame:
        training["augment"] = "light"
    settings: dict[str, Any] = {"input_size": list(fitting_size(image, preset["pixels"])), "training": training}
    loss = task.thorough_loss if preset.get("thorough_loss") else ""
    return {**settings, "loss": loss} if loss else settings


def fitting_size(image: Size, pixels: int) -> Size:
    """Return a size with the image's aspect ratio and about ``pixels``.

    Both sides are multiples of 8, no larger than the image, and at least 32.
    """
    shrink = math.sqrt(pixels / (image[0] * image[1]))
    height, width = (max(SMALLEST, min(round(side * shrink / MULTIPLE), side // MULTIPLE) * MULTIPLE) for side in image)
    return height, width


def fill_in(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` with missing keys taken from ``defaults``, also inside sections."""
    merged: dict[str, Any] = dict(defaults)
    for key, value in settings.items():
        default = merged.get(key)
        is_section = isinstance(default, Mapping) and isinstance(value, Mapping)
        merged[key] = fill_in(value, default) if is_section else value  # type: ignore[arg-type]
    return merged
