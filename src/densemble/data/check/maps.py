"""One map: its numbers are summed up, and what is wrong with it alone is found."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from densemble.data.check.patterns import MANY_LABELS, are_smoothed, count_labels
from densemble.data.check.problems import Problem, Severity, leaving_out
from densemble.data.check.seen import Seen, SeenMap, SeenValues
from densemble.data.check.subject import Checkable
from densemble.data.read_pairs import is_point_table
from densemble.shapes import Array
from densemble.storage import images as codec
from densemble.storage.points import read_point_table
from densemble.tasks import TASKS, TargetKind

LOSSY_SUFFIXES = (".jpg", ".jpeg")
_SATURATED = 0.001
_AS_PNG = "make the map again without antialiasing or compression, resize it by the nearest pixel, save it as PNG"


def measure_map(seen: Seen, target: Array, data: Checkable, kept: int) -> SeenMap:
    """Sums up a map and adds what is wrong with it to the problems of its pair.

    Args:
        seen: the pair.
        target: ``(H, W)`` or ``(K, H, W)`` in the task's terms.
        data: the folder.
        kept: how many of its values are kept.
    """
    contiguous = np.ascontiguousarray(target)
    first = contiguous.reshape(-1)[:1]
    result = SeenMap(
        digest=hashlib.blake2b(contiguous.data, digest_size=16).digest(),
        channels=target.shape[0] if target.ndim == 3 else 1,
        constant=bool(first.size and (contiguous == first).all()),
    )
    MEASURES[data.reading.kind](seen, result, contiguous, data, kept)
    return result


def _say(seen: Seen, kind: str, message: str, remedy: str | None = None, severity: Severity = "error") -> None:
    remedy = remedy or f"make the map again, or leave the pair out: {leaving_out(seen.name)}"
    seen.problems.append(Problem(kind, str(seen.sample.target), message, remedy, severity, pair=seen.name))


def _labels(seen: Seen, result: SeenMap, labels: Array, data: Checkable, kept: int) -> None:
    path, drawn = seen.sample.target, seen.sample.drawing is not None
    result.labels = count_labels(labels)
    known = sorted(set(result.labels) - {data.ignore_index})
    if not drawn and data.reading.color_map is None:
        palette = codec.palette_of(path)
        result.palette = None if palette is None else np.array(palette, np.uint8).tobytes()
    if not drawn:
        _labels_without_data(seen, labels, data)
    if not known:
        _say(seen, "empty map", f"'{path}' holds nothing but the ignored label {data.ignore_index}")
    elif not drawn and path.suffix.lower() in LOSSY_SUFFIXES:
        _say(seen, "lossy labels", f"labels '{path}' are a JPEG, which changes them: {len(known)} labels", _AS_PNG)
        result.spoilt = True
    elif len(known) > max(MANY_LABELS, len(data.classes or ())):
        _say(
            seen,
            "values as labels",
            f"'{path}' has {len(known)} different labels up to {known[-1]}: it looks like heat or measured values",
            "choose the task that the maps are for: --task saliency, --task depth or --task regression",
        )
        result.spoilt = True
    elif not drawn and are_smoothed(labels):
        message = f"the borders in '{path}' are smoothed: labels between the two beside them, {len(known)} in all"
        _say(seen, "smoothed labels", message, _AS_PNG)
        result.spoilt = True


def _labels_without_data(seen: Seen, labels: Array, data: Checkable) -> None:
    """Labels keep what their file calls no data: that may be the background as well."""
    path = seen.sample.target
    valid = codec.read_validity(path, data.reading.turns_files)
    if valid is None or valid.shape != labels.shape:
        return
    counted = count_labels(labels[~valid & (labels != data.ignore_index) & (labels >= 0)])
    if counted:
        label = max(counted, key=counted.__getitem__)
        message = f"'{path}' says that {(~valid).mean():.1%} of it holds no data, where its label {label} is a class"
        remedy = f"where that label stands for nothing say --set data.ignore_index={label}"
        _say(seen, "no data among labels", message, remedy, "warning")


def _masks(seen: Seen, result: SeenMap, masks: Array, data: Checkable, kept: int) -> None:
    result.masks = [(int((plane == 1).sum()), int((plane <= 1).sum()), plane.size) for plane in masks]
    if not any(known for _, known, _ in result.masks):
        _say(seen, "empty map", f"'{seen.sample.target}' is unknown (255) everywhere")


def _heat(seen: Seen, result: SeenMap, heat: Array, data: Checkable, kept: int) -> None:
    result.values = _sum_up(heat, np.ones(heat.shape, bool), kept)
    if is_point_table(seen.sample.target):
        _points(seen, result)
    elif not heat.any():
        severity: Severity = "warning" if TASKS[data.task_name].blank_is_valid else "error"
        _say(seen, "empty map", f"'{seen.sample.target}' is 0 everywhere", severity=severity)
    elif result.constant:
        _say(seen, "constant map", f"'{seen.sample.target}' is the same everywhere", severity="warning")


def _density(seen: Seen, result: SeenMap, density: Array, data: Checkable, kept: int) -> None:
    result.values = _sum_up(density, np.ones(density.shape, bool), kept)
    if is_point_table(seen.sample.target):
        _points(seen, result)
        return
    result.points = float(density.sum())
    if not density.any():
        _say(seen, "no points", f"density '{seen.sample.target}' is 0 everywhere", severity="warning")


def _points(seen: Seen, result: SeenMap) -> None:
    path = seen.sample.target
    points, _ = read_point_table(path)
    result.points = float(len(points))
    if not len(points):
        _say(seen, "no points", f"'{path}' lists no point", severity="warning")
    if seen.image is None or not len(points):
        return
    height, width = seen.image.size
    outside = ((points < -0.5) | (points >= np.array([width, height]) - 0.5)).any(1)
    if outside.any():
        message = f"{int(outside.sum())} of {len(points)} points in '{path}' lie outside its {height}x{width} image"
        if (points[:, ::-1] < np.array([width, height]) - 0.5).all():
            message += "; x and y seem to be exchanged"
        _say(seen, "points outside", message, "x is to the right and y down, in pixels from 0: correct the file")
    elif len(points) > 1 and points.min() >= 0 and points.max() <= 1:
        message = f"all points in '{path}' lie in the first pixel: they seem to be shares of the image"
        _say(seen, "relative points", message, f"multiply x by the width ({width}) and y by the height ({height})")


def _values(seen: Seen, result: SeenMap, values: Array, data: Checkable, kept: int) -> None:
    path = seen.sample.target
    valid = np.isfinite(values)
    if data.invalid_below is not None:
        valid &= values > data.invalid_below
    negative, zeros = int(((values < 0) & np.isfinite(values)).sum()), int((values == 0).sum())
    result.values = replace(_sum_up(values, valid, kept), negative=negative, zeros=zeros)
    infinite = int(np.isinf(values).sum())
    if infinite:
        message = f"'{path}' holds {infinite} infinite values, which count as invalid"
        _say(seen, "infinite values", message, "write NaN where nothing is known", "warning")
    if not valid.any():
        below = bool((values < 0).any())
        message = f"'{path}' has no valid value" + (f" above {data.invalid_below:g}" if below else "")
        remedy = "where all values are meant, say so: --set data.invalid_below=null" if below else None
        _say(seen, "empty map", message, remedy)
        return
    if result.constant:
        _say(seen, "constant map", f"'{path}' is the same everywhere", severity="warning")
    raw = np.where(valid, values / np.float32(data.scale), 0)
    full = int((np.rint(raw) == 65535).sum())
    if full > _SATURATED * raw.size:
        message = f"{full / raw.size:.1%} of '{path}' is 65535, which many sensors write for nothing"
        _say(seen, "saturated values", message, "write 0 or NaN where nothing is known", "warning")


def _pixels(seen: Seen, result: SeenMap, pixels: Array, data: Checkable, kept: int) -> None:
    valid = np.isfinite(pixels)
    result.values = _sum_up(pixels, valid, kept)
    if not valid.any():
        _say(seen, "empty map", f"'{seen.sample.target}' has no valid pixel")
    elif result.constant:
        _say(seen, "constant map", f"'{seen.sample.target}' is one colour", severity="warning")


def _sum_up(values: Array, valid: Array, kept: int) -> SeenValues:
    good = values[valid].ravel()
    if not good.size:
        return SeenValues(np.inf, -np.inf, 0.0, 0, values.size, np.zeros(0, np.float32))
    some = good[:: max(1, good.size // kept)].astype(np.float32)
    total = float(good.sum(dtype=np.float64))
    return SeenValues(float(good.min()), float(good.max()), total, good.size, values.size, some)


MEASURES: dict[TargetKind, Callable[[Seen, SeenMap, Array, Checkable, int], None]] = {
    "labels": _labels,
    "masks": _masks,
    "heat": _heat,
    "density": _density,
    "values": _values,
    "pixels": _pixels,
}
"""How each kind of map is summed up."""


def map_files(seen: Seen) -> list[Path]:
    """The files that a pair's map is read from."""
    planes = [path for _, path in seen.sample.planes]
    return planes if seen.sample.plane_names else [seen.sample.target]
