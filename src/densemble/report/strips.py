"""Strips: one image beside its truth, the ensemble's map, its uncertainty, and the map of every member."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densemble.data.decoded_cache import resize_image
from densemble.data.targets import resize_target
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.inference import drawing
from densemble.shapes import Array, Size
from densemble.tasks import Task

Panel = tuple[str, Array]
"""Title and pixels, uint8 ``(H, W, 3)``."""
_WIDTH = 240


@dataclass(frozen=True)
class ImageStrip:
    """An image as a row of panels.

    Attributes:
        name: of the image.
        score: of the ensemble on it; ``None`` where it has none.
        caption: why it is shown.
        panels: from left to right.
    """

    name: str
    score: float | None
    caption: str
    panels: tuple[Panel, ...]


def draw_panels(
    image: Array, target: Tensor, prediction: Prediction, members: Mapping[str, Tensor], task: Task
) -> tuple[Panel, ...]:
    """Image, truth, ensemble, uncertainty and members, small, in the same colours and on the same scale.

    Args:
        image: uint8 ``(H, W, 3)``.
        target: of any size, as the task has them.
        prediction: of the ensemble, a batch of one, of any size.
        members: activated maps ``(K, h, w)`` by name, of any size.
        task: what the maps mean.
    """
    height, width = image.shape[:2]
    size = (max(1, round(height * min(1, _WIDTH / width))), min(width, _WIDTH))
    small = np.ascontiguousarray(resize_image(image, size).permute(1, 2, 0).numpy())
    true, valid = task.as_maps(resize_target(target, size, task.target_kind))
    painter = _MapPainter(small, task, drawing.value_range(true[valid.expand_as(true)].numpy()))
    truth = painter.draw(true)
    truth[~valid.any(0).numpy()] = 0
    title, unsure = _uncertainty(prediction, task, size)
    panels = [("image", small), ("truth", truth), ("ensemble", painter.draw(prediction.mean[0].float().cpu()))]
    return (*panels, (title, unsure), *((name, painter.draw(maps.float().cpu())) for name, maps in members.items()))


class _MapPainter:
    """Draws maps over one image.

    Args:
        image: uint8 ``(H, W, 3)``.
        task: what the maps mean.
        within: values are drawn from the lowest to the highest of these.
    """

    def __init__(self, image: Array, task: Task, within: tuple[float, float]) -> None:
        self._image = image
        self._kind = task.target_kind
        self._within = within

    def draw(self, maps: Tensor) -> Array:
        """Maps ``(K, h, w)`` as uint8 ``(H, W, 3)``."""
        size = (self._image.shape[0], self._image.shape[1])
        planes = resize_maps(maps[None], size, self._kind == "density")[0].numpy()
        if self._kind == "values":
            # One scale for all panels: each on its own would hide that a member is wrong by a factor.
            return drawing.colour_values(np.nan_to_num(planes[0]), *self._within)
        return drawing.draw_map(self._image, planes, self._kind, planes.argmax(0))


def _uncertainty(prediction: Prediction, task: Task, size: Size) -> Panel:
    """Entropy from none to the most that is possible, or the members' spread up to its own highest values."""
    if prediction.entropy is not None:
        values = resize_maps(prediction.entropy[:1, None].float().cpu(), size)[0, 0].numpy()
        most = math.log(task.out_channels) if task.distribution == "categorical" else math.log(2)
        return "uncertainty (entropy)", drawing.colour_values(values, 0, most, "inferno")
    spread = prediction.spread()[:1].float().cpu().clamp(min=0).mean(1, keepdim=True).sqrt()
    values = torch.nan_to_num(resize_maps(spread, size)[0, 0]).numpy()
    return "uncertainty (spread)", drawing.colour_values(values, 0, float(np.percentile(values, 99)), "inferno")
