"""Images for the report: best, worst and most disputed, with target, ensemble, uncertainty and members."""

from collections.abc import Mapping, Sequence
from typing import Any

from densemble.data.folder import FolderData
from densemble.inference.drawing import as_rgb
from densemble.report.strips import ImageStrip, draw_panels
from densemble.selection.recipe import Fitted
from densemble.shapes import size_of

EACH = 3
MOST_MEMBERS = 8


def report_strips(
    fitted: Fitted,
    data: FolderData,
    disputed: Sequence[Mapping[str, Any]],
    higher_is_better: bool,
) -> list[ImageStrip]:
    """Strips of a few validation images.

    Args:
        fitted: the ensemble.
        data: images are read from it.
        disputed: rows of the analysis, the most disputed first.
        higher_is_better: whether more of the rows' score is better.
    """
    sign = 1 if higher_is_better else -1
    scored = sorted((row for row in disputed if row["score"] is not None), key=lambda row: sign * row["score"])
    several = len(fitted.held.names) > 1
    groups = {
        "among the worst": scored[:EACH],
        "among the best": scored[::-1][:EACH],
        "among those that the members agree least about": disputed[:EACH] if several else [],
    }
    told: dict[int, tuple[float | None, list[str]]] = {}
    for caption, rows in groups.items():
        for row in rows:
            told.setdefault(row["number"], (row["score"], []))[1].append(caption)
    return [_strip(fitted, data, number, score, ", ".join(captions)) for number, (score, captions) in told.items()]


def _strip(fitted: Fitted, data: FolderData, number: int, score: float | None, caption: str) -> ImageStrip:
    sample = data.val[number]
    image = as_rgb(data.unit_image(sample))
    maps, shares = fitted.held.read(number), list(fitted.combination.weights.values())
    heaviest = sorted(range(len(maps)), key=lambda place: -shares[place])[:MOST_MEMBERS]
    members = {fitted.held.names[place]: maps[place] for place in sorted(heaviest)}
    target = fitted.held.targets[number][0]
    prediction = fitted.combination.predict_at(maps[:, None], size_of(target))
    panels = draw_panels(image, target, prediction, members, fitted.held.task)
    return ImageStrip(sample.stem, score, caption, panels)
