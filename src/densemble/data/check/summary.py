"""What a set is like, in numbers."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from densemble.data.check.classes import class_names, class_pixels, ignored, label_shares
from densemble.data.check.seen import Seen, SeenMap
from densemble.data.check.subject import Checkable

_SIZES = 5
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def sum_up_split(data: Checkable, seen: Sequence[Seen], names: list[str] | None) -> dict[str, Any]:
    """Of one split.

    Returns:
        ``pairs``, ``usable`` (both files could be read), ``sizes`` (the commonest), ``channels``, ``depths``,
        ``with_fixations``; of labels ``label_share`` (of all pixels); of labels and masks ``ignored_label``,
        ``ignored_share``, ``class_share`` (of the pixels that are known) and ``class_images``; of everything else
        ``values`` (lowest and highest), ``mean``, ``percentiles`` (of some pixels of every map) and
        ``invalid_share``; ``points`` per map.
    """
    images = [one.image for one in seen if one.image is not None]
    maps = [one.map for one in seen if one.map is not None]
    sizes = Counter(f"{image.size[0]}x{image.size[1]}" for image in images)
    facts: dict[str, Any] = {
        "pairs": len(seen),
        "usable": sum(one.image is not None and one.map is not None for one in seen),
        "sizes": dict(sizes.most_common(_SIZES)),
        "channels": {str(key): count for key, count in Counter(p.channels for p in images).most_common()},
        "depths": dict(Counter(image.depth for image in images).most_common()),
        "with_fixations": sum(one.with_points for one in seen),
    }
    if data.reading.kind in ("labels", "masks"):
        facts |= _of_classes(data, seen, names or [])
    else:
        facts |= _of_values(maps)
    counts = [found.points for found in maps if found.points is not None]
    if counts:
        facts["points"] = {"total": round(sum(counts), 3), "lowest": min(counts), "highest": max(counts)}
    return facts


def _of_classes(data: Checkable, seen: Sequence[Seen], names: list[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if data.reading.kind == "labels":
        shares = label_shares(seen)
        facts["label_share"] = {str(label): round(share, 5) for label, share in shares.items()}
    facts["ignored_label"], share = ignored(data, seen)
    facts["ignored_share"] = round(share, 5)
    pixels, known, images = class_pixels(data, seen, len(names))
    facts["class_share"] = {
        name: round(own / total, 6) if total else 0.0 for name, own, total in zip(names, pixels, known, strict=True)
    }
    facts["class_pictures"] = dict(zip(names, images, strict=True))
    return facts


def _of_values(maps: Sequence[SeenMap]) -> dict[str, Any]:
    values = [found.values for found in maps if found.values is not None]
    valid, pixels = sum(one.valid for one in values), sum(one.pixels for one in values)
    if not valid:
        return {"values": None, "invalid_share": 1.0 if pixels else None}
    some = np.concatenate([one.some for one in values])
    at = np.percentile(some, _PERCENTILES)
    return {
        "values": [min(one.low for one in values), max(one.high for one in values)],
        "mean": sum(one.total for one in values) / valid,
        "percentiles": {str(p): float(value) for p, value in zip(_PERCENTILES, at, strict=True)},
        "invalid_share": round(1 - valid / pixels, 5),
    }


def sum_up_images(seen: Sequence[Seen]) -> dict[str, Any]:
    """Mean and standard deviation of all images per channel, in [0, 1], of those with the usual channels; and the
    share of pixels that their files say to hold no data."""
    images = [one.image for one in seen if one.image is not None]
    if not any(image.pixels for image in images):
        return {"mean": [], "std": [], "no_data_share": 1.0 if images else 0.0}
    usual = Counter(image.channels for image in images).most_common(1)[0][0]
    same = [image for image in images if image.channels == usual]
    pixels = max(sum(image.pixels for image in same), 1)
    mean = np.sum([image.sums for image in same], axis=0) / pixels
    squares = np.sum([image.squares for image in same], axis=0) / pixels
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    areas = [image.size[0] * image.size[1] for image in images]
    known = sum(image.known * area for image, area in zip(images, areas, strict=True))
    return {
        "mean": [round(float(v), 5) for v in mean],
        "std": [round(float(v), 5) for v in std],
        "no_data_share": round(1 - known / sum(areas), 5),
    }


def named_classes(data: Checkable, seen: Sequence[Seen]) -> list[str] | None:
    """The classes that are known or were counted."""
    return class_names(data, seen) if data.reading.kind in ("labels", "masks") or data.classes else None
