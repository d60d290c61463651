"""Rows of panels: an image, its target, the predictions of ensemble and members, and the uncertainty."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from densemble.data.decoded_cache import resize_image
from densemble.data.targets import resize_target
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.inference import drawing
from densemble.shapes import Array, Size
from densemble.tasks import TargetKind, Task

Panel = tuple[str, Array]
"""Title, and pixels as uint8 ``(H, W, 3)``."""
_WIDTH = 240


@dataclass(frozen=True)
class ImageStrip:
    """One row of panels.

    Attributes:
        name: name of the image.
        score: score of the ensemble on the image; ``None`` if it is undefined.
        caption: why the image is shown.
        panels: panels from left to right.
    """

    name: str
    score: float | None
    caption: str
    panels: tuple[Panel, ...]


def draw_panels(
    image: Array, target: Tensor, prediction: Prediction, members: Mapping[str, Tensor], task: Task
) -> tuple[Panel, ...]:
    """Draw image, target, prediction, uncertainty and members' predictions, in the same colours and on the same scale.

    Args:
        image: uint8 ``(H, W, 3)``.
        target: target in the format of the task, of any size.
        prediction: prediction of the ensemble, a batch of one, of any size.
        members: name of each member -> activated maps ``(K, h, w)``, of any size.
        task: meaning of the maps.

    Returns:
        Panels at most 240 pixels wide.
    """
    height, width = image.shape[:2]
    size = (max(1, round(height * min(1, _WIDTH / width))), min(width, _WIDTH))
    small = np.ascontiguousarray(resize_image(image, size).permute(1, 2, 0).numpy())
    target_maps, valid = task.as_maps(resize_target(target, size, task.target_kind))
    # One scale for all panels: separate scales would hide that a member is wrong by a factor.
    within = drawing.value_range(target_maps[valid.expand_as(target_maps)].numpy())
    draw = partial(_draw_maps, image=small, kind=task.target_kind, within=within)
    drawn_target = draw(target_maps)
    drawn_target[~valid.any(0).numpy()] = 0
    return (
        ("image", small),
        ("target", drawn_target),
        ("ensemble", draw(prediction.mean[0].float().cpu())),
        _uncertainty(prediction, task, size),
        *((name, draw(maps.float().cpu())) for name, maps in members.items()),
    )


def _draw_maps(maps: Tensor, image: Array, kind: TargetKind, within: tuple[float, float]) -> Array:
    """Draw maps ``(K, h, w)`` over a uint8 image ``(H, W, 3)``; colours of values span the range ``within``."""
    planes = resize_maps(maps[None], (image.shape[0], image.shape[1]), kind == "density")[0].numpy()
    if kind == "values":
        return drawing.colour_values(np.nan_to_num(planes[0]), *within)
    return drawing.draw_map(image, planes, kind, planes.argmax(0))


def _uncertainty(prediction: Prediction, task: Task, size: Size) -> Panel:
    """Draw the entropy from 0 to its maximum; without entropy, the spread of the members up to its 99th percentile."""
    if prediction.entropy is not None:
        values = resize_maps(prediction.entropy[:1, None].float().cpu(), size)[0, 0].numpy()
        maximum = math.log(task.out_channels) if task.distribution == "categorical" else math.log(2)
        return "uncertainty (entropy)", drawing.colour_values(values, 0, maximum, "inferno")
    spread = prediction.spread()[:1].float().cpu().clamp(min=0).mean(1, keepdim=True).sqrt()
    values = torch.nan_to_num(resize_maps(spread, size)[0, 0]).numpy()
    return "uncertainty (spread)", drawing.colour_values(values, 0, float(np.percentile(values, 99)), "inferno")
