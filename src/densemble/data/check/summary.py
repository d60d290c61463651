"""Facts that describe a data set in numbers."""

from collections import Counter
from typing import Any

import numpy as np

from densemble.data.check.classes import class_pixels, ignored_label, label_shares
from densemble.data.check.seen import CheckedData
from densemble.shapes import format_size

_SIZES = 5
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def sum_up_split(checked: CheckedData, names: list[str]) -> dict[str, Any]:
    """Facts of one split.

    Args:
        checked: the pairs of the split.
        names: names of the classes.

    Returns:
        ``pairs``, ``usable`` (both files are readable), ``sizes`` (the most common ones), ``channels``, ``depths``,
        ``with_fixations``; for labels ``label_share`` (of all pixels); for labels and masks ``ignored_label``,
        ``ignored_share``, ``class_share`` (of the known pixels) and ``class_pictures``; for all other kinds ``values``
        (lowest and highest), ``mean``, ``percentiles`` (of a sample of each target) and ``invalid_share``; ``points``
        per target, if targets have points.
    """
    images = [image for _, image in checked.images]
    facts: dict[str, Any] = {
        "pairs": len(checked.pairs),
        "usable": sum(pair.target is not None for pair, _ in checked.images),
        "sizes": dict(Counter(format_size(image.size) for image in images).most_common(_SIZES)),
        "channels": {str(key): count for key, count in Counter(image.channels for image in images).most_common()},
        "depths": dict(Counter(image.depth for image in images).most_common()),
        "with_fixations": sum(pair.has_fixations for pair in checked.pairs),
    }
    facts |= _class_facts(checked, names) if checked.data.reading.kind in ("labels", "masks") else _value_facts(checked)
    counts = [target.points for _, target in checked.targets if target.points is not None]
    if counts:
        facts["points"] = {"total": round(sum(counts), 3), "lowest": min(counts), "highest": max(counts)}
    return facts


def _class_facts(checked: CheckedData, names: list[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if checked.data.reading.kind == "labels":
        facts["label_share"] = {str(label): round(share, 5) for label, share in label_shares(checked).items()}
    facts["ignored_label"], share = ignored_label(checked)
    facts["ignored_share"] = round(share, 5)
    pixels, known, images = class_pixels(checked, len(names))
    facts["class_share"] = {
        name: round(count / total, 6) if total else 0.0 for name, count, total in zip(names, pixels, known, strict=True)
    }
    facts["class_pictures"] = dict(zip(names, images, strict=True))
    return facts


def _value_facts(checked: CheckedData) -> dict[str, Any]:
    values = [target.values for _, target in checked.targets if target.values is not None]
    valid, pixels = sum(facts.valid for facts in values), sum(facts.pixels for facts in values)
    if not valid:
        return {"values": None, "invalid_share": 1.0 if pixels else None}
    percentiles = np.percentile(np.concatenate([facts.some for facts in values]), _PERCENTILES)
    return {
        "values": [min(facts.low for facts in values), max(facts.high for facts in values)],
        "mean": sum(facts.total for facts in values) / valid,
        "percentiles": {str(p): float(value) for p, value in zip(_PERCENTILES, percentiles, strict=True)},
        "invalid_share": round(1 - valid / pixels, 5),
    }


def sum_up_images(checked: CheckedData) -> dict[str, Any]:
    """Mean and standard deviation per channel, in [0, 1], and the share of pixels that the files mark as no data.

    Mean and standard deviation are those of the images with the most common number of channels.
    """
    images = [image for _, image in checked.images]
    if not any(image.pixels for image in images):
        return {"mean": [], "std": [], "no_data_share": 1.0 if images else 0.0}
    usual = Counter(image.channels for image in images).most_common(1)[0][0]
    measured = [image for image in images if image.channels == usual]
    pixels = max(sum(image.pixels for image in measured), 1)
    mean = np.sum([image.sums for image in measured], axis=0) / pixels
    squares = np.sum([image.squares for image in measured], axis=0) / pixels
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    areas = [image.size[0] * image.size[1] for image in images]
    known = sum(image.known * area for image, area in zip(images, areas, strict=True))
    return {
        "mean": [round(float(value), 5) for value in mean],
        "std": [round(float(value), 5) for value in std],
        "no_data_share": round(1 - known / sum(areas), 5),
    }
