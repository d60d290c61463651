"""Image strips of the report: best, worst and most disputed images with target, ensemble, error and uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Any

from densemble.data.folder import FolderData
from densemble.inference.drawing import as_rgb
from densemble.report.chosen_images import ChosenImage, choose_images
from densemble.report.strips import ImageStrip, draw_panels
from densemble.selection.recipe import Fitted
from densemble.shapes import size_of

MAX_MEMBERS = 8


def report_strips(
    fitted: Fitted,
    data: FolderData,
    rows: Sequence[Mapping[str, Any]],
    higher_is_better: bool,
) -> list[ImageStrip]:
    """Draw strips of a few validation images.

    Args:
        fitted: the ensemble.
        data: data set with the images.
        rows: rows of the images in the analysis.
        higher_is_better: whether a higher score is better.
    """
    return [_strip(fitted, data, chosen) for chosen in choose_images(rows, higher_is_better, len(fitted.held.names))]


def _strip(fitted: Fitted, data: FolderData, chosen: ChosenImage) -> ImageStrip:
    sample = data.val[chosen.number]
    image = as_rgb(data.unit_image(sample))
    maps, shares = fitted.held.read(chosen.number), list(fitted.combination.weights.values())
    heaviest = sorted(range(len(maps)), key=lambda member: -shares[member])[:MAX_MEMBERS]
    members = {fitted.held.names[member]: maps[member] for member in sorted(heaviest)}
    target = fitted.held.targets[chosen.number][0]
    prediction = fitted.combination.predict_at(maps[:, None], size_of(target))
    panels, drawn = draw_panels(image, target, prediction, members, fitted.held.task)
    return ImageStrip(sample.stem, chosen.score, chosen.caption, panels, drawn, chosen.leading)
