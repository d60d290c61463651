"""Image strips of the report: best, worst and most disputed images with target, ensemble, uncertainty and members."""

from collections.abc import Mapping, Sequence
from typing import Any

from densemble.data.folder import FolderData
from densemble.inference.drawing import as_rgb
from densemble.report.strips import ImageStrip, draw_panels
from densemble.selection.recipe import Fitted
from densemble.shapes import size_of

IMAGES_PER_GROUP = 3
MAX_MEMBERS = 8


def report_strips(
    fitted: Fitted,
    data: FolderData,
    disputed: Sequence[Mapping[str, Any]],
    higher_is_better: bool,
) -> list[ImageStrip]:
    """Draw strips of a few validation images.

    Args:
        fitted: the ensemble.
        data: data set with the images.
        disputed: rows of the images in the analysis, largest disagreement first.
        higher_is_better: whether a higher score is better.
    """
    sign = 1 if higher_is_better else -1
    scored = sorted((row for row in disputed if row["score"] is not None), key=lambda row: sign * row["score"])
    several = len(fitted.held.names) > 1
    groups = {
        "among the worst": scored[:IMAGES_PER_GROUP],
        "among the best": scored[::-1][:IMAGES_PER_GROUP],
        "among those with the largest disagreement of the members": disputed[:IMAGES_PER_GROUP] if several else [],
    }
    strips: dict[int, tuple[float | None, list[str]]] = {}
    for caption, rows in groups.items():
        for row in rows:
            strips.setdefault(row["number"], (row["score"], []))[1].append(caption)
    return [_strip(fitted, data, index, score, ", ".join(captions)) for index, (score, captions) in strips.items()]


def _strip(fitted: Fitted, data: FolderData, index: int, score: float | None, caption: str) -> ImageStrip:
    sample = data.val[index]
    image = as_rgb(data.unit_image(sample))
    maps, shares = fitted.held.read(index), list(fitted.combination.weights.values())
    heaviest = sorted(range(len(maps)), key=lambda member: -shares[member])[:MAX_MEMBERS]
    members = {fitted.held.names[member]: maps[member] for member in sorted(heaviest)}
    target = fitted.held.targets[index][0]
    prediction = fitted.combination.predict_at(maps[:, None], size_of(target))
    panels = draw_panels(image, target, prediction, members, fitted.held.task)
    return ImageStrip(sample.stem, score, caption, panels)
