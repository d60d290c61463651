"""Presets: settings of run.yaml for those who do not want to choose them."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from densemble.errors import UsageError
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
"""By name: the area of an image in pixels, no larger than the images are, settings of run.yaml, and whether
the task's ``thorough_loss`` is taken."""
MULTIPLE = 8
SMALLEST = 32


class Traits(Protocol):
    """What a preset needs to know of a task; see :class:`densemble.tasks.Task`."""

    keeps_frame: bool
    thorough_loss: str


def preset_settings(name: str, task: Traits, image: Size) -> dict[str, Any]:
    """Settings of run.yaml.

    Args:
        name: row of ``PRESETS``.
        task: value of ``TASKS``; one whose targets depend on the frame is not augmented strongly.
        image: (H, W) that the images typically have.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset is named '{name}'; there are: {', '.join(PRESETS)}")
    preset = PRESETS[name]
    training = dict(preset["training"])
    if task.keeps_frame:
        training["augment"] = "light"
    settings: dict[str, Any] = {"input_size": list(fitting_size(image, preset["pixels"])), "training": training}
    loss = task.thorough_loss if preset.get("thorough_loss") else ""
    return {**settings, "loss": loss} if loss else settings


def fitting_size(image: Size, pixels: int) -> Size:
    """The size of about ``pixels`` with an image's shape: multiples of 8, no larger than the image, at least 32."""
    shrink = math.sqrt(pixels / (image[0] * image[1]))
    height, width = (max(SMALLEST, min(round(side * shrink / MULTIPLE), side // MULTIPLE) * MULTIPLE) for side in image)
    return height, width


def under(explicit: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``explicit`` with what it does not say taken from ``settings``, section by section."""
    merged: dict[str, Any] = dict(settings)
    for key, value in explicit.items():
        known = merged.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        merged[key] = under(value, known) if both and isinstance(known, Mapping) else value
    return merged
