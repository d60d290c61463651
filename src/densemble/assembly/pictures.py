"""Pictures for the report: best, worst and most disputed, with truth, ensemble, uncertainty and members."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from densemble.assembly.mixture import Mixture
from densemble.data.folder import FolderData
from densemble.inference.sources import shown
from densemble.report.strips import PictureStrip, draw_panels

EACH = 3
MOST_MEMBERS = 8


def report_strips(
    mixture: Mixture,
    data: FolderData,
    disputed: Sequence[Mapping[str, Any]],
    higher_is_better: bool,
) -> list[PictureStrip]:
    """Strips of a few validation pictures.

    Args:
        mixture: as the ensemble is.
        data: images are read from it.
        disputed: rows of the analysis, the most disputed first.
        higher_is_better: whether more of the rows' score is better.
    """
    sign = 1 if higher_is_better else -1
    scored = sorted((row for row in disputed if row["score"] is not None), key=lambda row: sign * row["score"])
    several = len(mixture.shares) > 1
    groups = {
        "among the worst": scored[:EACH],
        "among the best": scored[::-1][:EACH],
        "among those that the members agree least about": disputed[:EACH] if several else [],
    }
    told: dict[int, tuple[float | None, list[str]]] = {}
    for caption, rows in groups.items():
        for row in rows:
            told.setdefault(row["number"], (row["score"], []))[1].append(caption)
    return [_strip(mixture, data, number, score, ", ".join(captions)) for number, (score, captions) in told.items()]


def _strip(mixture: Mixture, data: FolderData, number: int, score: float | None, caption: str) -> PictureStrip:
    sample = data.val[number]
    image = shown(torch.from_numpy(np.ascontiguousarray(data.unit_image(sample))).permute(2, 0, 1))
    maps = mixture.held.read(number)
    heaviest = sorted(range(len(maps)), key=lambda place: -mixture.shares[place])[:MOST_MEMBERS]
    members = {mixture.held.names[place]: maps[place] for place in sorted(heaviest)}
    target = mixture.held.truths[number][0]
    prediction = mixture.predict(maps, (int(target.shape[-2]), int(target.shape[-1])))
    panels = draw_panels(image, target, prediction, members, mixture.held.task)
    return PictureStrip(sample.stem, score, caption, panels)
