"""Rows of panels: an image, its target, the predictions of ensemble and members, the error, and the uncertainty."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from densemble.data.decoded_cache import resize_image
from densemble.data.targets import resize_target
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.inference import drawing
from densemble.inference.drawing import Drawing, Legend, Meaning
from densemble.inference.meaning import meaning_of
from densemble.report.error_maps import draw_error
from densemble.shapes import Array, Size
from densemble.tasks import Task

_WIDTH = 320


@dataclass(frozen=True)
class Panel:
    """One drawing of a row.

    Attributes:
        title: what it shows.
        pixels: uint8 ``(H, W, 3)``.
        legend: meaning of its colours; the page draws it in its own colours.
    """

    title: str
    pixels: Array
    legend: Legend = field(default_factory=Legend)


@dataclass(frozen=True)
class ImageStrip:
    """One row of panels.

    Attributes:
        name: name of the image.
        score: score of the ensemble on the image; ``None`` if it is undefined.
        caption: why the image is shown.
        panels: image, target, ensemble, error and uncertainty.
        members: predictions of the members.
        leading: whether the row is shown at once; other rows are behind a fold.
    """

    name: str
    score: float | None
    caption: str
    panels: tuple[Panel, ...]
    members: tuple[Panel, ...] = ()
    leading: bool = True


def draw_panels(
    image: Array, target: Tensor, prediction: Prediction, members: Mapping[str, Tensor], task: Task
) -> tuple[tuple[Panel, ...], tuple[Panel, ...]]:
    """Draw image, target, prediction, error, uncertainty and members' predictions, in the same colours and scale.

    Args:
        image: uint8 ``(H, W, 3)``.
        target: target in the format of the task, of any size.
        prediction: prediction of the ensemble, a batch of one, of any size.
        members: name of each member -> activated maps ``(K, h, w)``, of any size.
        task: meaning of the maps.

    Returns:
        Panels of the ensemble, and panels of the members, at most 320 pixels wide.
    """
    height, width = image.shape[:2]
    size = (max(1, round(height * min(1, _WIDTH / width))), min(width, _WIDTH))
    small = np.ascontiguousarray(resize_image(image, size).permute(1, 2, 0).numpy())
    target_maps, valid = task.as_maps(resize_target(target, size, task.target_kind))
    # One scale for all panels: separate scales would hide that a member is wrong by a factor.
    within = drawing.value_range(target_maps[valid.expand_as(target_maps)].numpy())
    meaning, unknown = meaning_of(task), ~valid.any(0).numpy()
    draw = partial(_draw_maps, image=small, meaning=meaning, within=within)
    mean = prediction.mean[0].float().cpu()
    error = draw_error(small, _resized(mean, size, meaning), target_maps, valid, meaning)
    panels = (
        Panel("image", small),
        _panel("target", draw(target_maps), unknown),
        _panel("ensemble", draw(mean)),
        Panel("error", error.pixels, error.legend),
        _uncertainty(prediction, task, size, len(members)),
    )
    return panels, tuple(_panel(name, draw(maps.float().cpu())) for name, maps in members.items())


def _panel(title: str, drawn: Drawing, unknown: Array | None = None) -> Panel:
    """The drawing with its bar of values; the page has one list of classes for all panels. Unknown pixels are black."""
    pixels = drawn.pixels if unknown is None else np.where(unknown[..., None], np.uint8(0), drawn.pixels)
    return Panel(title, pixels, Legend(bar=drawn.legend.bar))


def _resized(maps: Tensor, size: Size, meaning: Meaning) -> Tensor:
    return resize_maps(maps[None], size, meaning.kind == "density")[0]


def _draw_maps(maps: Tensor, image: Array, meaning: Meaning, within: tuple[float, float]) -> Drawing:
    """Draw maps ``(K, h, w)`` over a uint8 image ``(H, W, 3)``; values have no image and span the range ``within``."""
    planes = _resized(maps, (image.shape[0], image.shape[1]), meaning).numpy()
    if meaning.kind == "values":
        return drawing.draw_view(planes, meaning, limits=within)
    return drawing.draw_overlay(image, planes, meaning, planes.argmax(0))


def _uncertainty(prediction: Prediction, task: Task, size: Size, members: int) -> Panel:
    """Draw the entropy, or the standard deviation of the members."""
    if prediction.entropy is not None:
        values = prediction.entropy[:1, None].float().cpu()
    else:
        spread = prediction.spread()[:1].float().cpu().clamp(min=0)
        values = spread.mean(1, keepdim=True).sqrt()
    drawn = drawing.draw_uncertainty(resize_maps(values, size)[0, 0].numpy(), meaning_of(task), members)
    return Panel("uncertainty", drawn.pixels, drawn.legend)
