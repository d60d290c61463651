"""Measures one target and reports its problems."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from densemble.data.check.patterns import MANY_LABELS, are_smoothed, count_labels
from densemble.data.check.problems import Severity, leaving_out
from densemble.data.check.seen import CheckedPair, TargetFacts, ValueFacts
from densemble.data.check.subject import Checkable
from densemble.data.facts import valid_values
from densemble.data.read_pairs import is_point_table
from densemble.shapes import Array
from densemble.storage import images as codec
from densemble.storage.points import read_point_table
from densemble.tasks import TASKS, TargetKind

LOSSY_SUFFIXES = (".jpg", ".jpeg")
_SATURATED = 0.001
TASKS_OF_VALUES = "use the task that fits the maps: --task saliency, --task depth or --task regression"
_AS_PNG = "make the map again without antialiasing or compression, resize it by the nearest pixel, save it as PNG"


def measure_target(pair: CheckedPair, target: Array, data: Checkable, kept: int) -> TargetFacts:
    """Computes the facts of a target ``(H, W)`` or ``(K, H, W)`` and adds its problems to those of the pair.

    ``kept`` is the number of values to keep.
    """
    kind = data.reading.kind
    contiguous = np.ascontiguousarray(target)
    first = contiguous.reshape(-1)[:1]
    facts = TargetFacts(
        digest=hashlib.blake2b(contiguous.data, digest_size=16).digest(),
        channels=target.shape[0] if target.ndim == 3 else 1,
        constant=bool(first.size and (contiguous == first).all()),
    )
    if kind not in ("labels", "masks"):
        valid = valid_values(data, contiguous) if kind == "values" else np.isfinite(contiguous)
        facts.values = _value_facts(contiguous, valid, kept)
    if kind in ("heat", "density") and is_point_table(pair.sample.target):
        _judge_points(pair, facts)
    else:
        JUDGES[kind](pair, facts, contiguous, data)
    return facts


def _report(
    pair: CheckedPair, kind: str, message: str, remedy: str | None = None, severity: Severity = "error"
) -> None:
    """Adds a problem of the target to those of the pair."""
    remedy = remedy or f"make the map again, or leave the pair out: {leaving_out(pair.name)}"
    pair.problems.append(pair.problem(kind, pair.sample.target, message, remedy, severity))


def _judge_labels(pair: CheckedPair, facts: TargetFacts, labels: Array, data: Checkable) -> None:
    path, drawn = pair.sample.target, pair.sample.drawing is not None
    facts.labels = count_labels(labels)
    known = sorted(set(facts.labels) - {data.ignore_index})
    if not drawn and data.reading.color_map is None:
        palette = codec.read_palette(path)
        facts.palette = None if palette is None else np.array(palette, np.uint8).tobytes()
    if not drawn:
        _labels_without_data(pair, labels, data)
    if not known:
        _report(pair, "empty map", f"'{path}' holds nothing but the ignored label {data.ignore_index}")
    elif not drawn and path.suffix.lower() in LOSSY_SUFFIXES:
        message = f"labels '{path}' are a JPEG, which changes them: {len(known)} labels"
        _report(pair, "lossy labels", message, _AS_PNG)
        facts.spoilt = True
    elif len(known) > max(MANY_LABELS, len(data.classes or ())):
        message = f"'{path}' has {len(known)} different labels up to {known[-1]}: it looks like heat or measured values"
        _report(pair, "values as labels", message, TASKS_OF_VALUES)
        facts.spoilt = True
    elif not drawn and are_smoothed(labels):
        message = f"the borders in '{path}' are smoothed: labels between the two beside them, {len(known)} in all"
        _report(pair, "smoothed labels", message, _AS_PNG)
        facts.spoilt = True


def _labels_without_data(pair: CheckedPair, labels: Array, data: Checkable) -> None:
    """Warns if the no-data value of a label map is a class; the labels stay, because it may be the background."""
    path = pair.sample.target
    valid = codec.read_validity(path, data.reading.turns_files)
    if valid is None or valid.shape != labels.shape:
        return
    counts = count_labels(labels[~valid & (labels != data.ignore_index) & (labels >= 0)])
    if counts:
        label = max(counts, key=counts.__getitem__)
        message = f"'{path}' marks {(~valid).mean():.1%} of its pixels as no data, where its label {label} is a class"
        remedy = f"if that label means unknown: --set data.ignore_index={label}"
        _report(pair, "no data among labels", message, remedy, "warning")


def _judge_masks(pair: CheckedPair, facts: TargetFacts, masks: Array, data: Checkable) -> None:
    facts.masks = [(int((plane == 1).sum()), int((plane <= 1).sum()), plane.size) for plane in masks]
    if not any(known for _, known, _ in facts.masks):
        _report(pair, "empty map", f"'{pair.sample.target}' is unknown (255) everywhere")


def _judge_heat(pair: CheckedPair, facts: TargetFacts, heat: Array, data: Checkable) -> None:
    if not heat.any():
        severity: Severity = "warning" if TASKS[data.task_name].blank_is_valid else "error"
        _report(pair, "empty map", f"'{pair.sample.target}' is 0 everywhere", severity=severity)
    else:
        _warn_if_constant(pair, facts)


def _judge_density(pair: CheckedPair, facts: TargetFacts, density: Array, data: Checkable) -> None:
    facts.points = float(density.sum())
    if not density.any():
        _report(pair, "no points", f"density '{pair.sample.target}' is 0 everywhere", severity="warning")


def _judge_points(pair: CheckedPair, facts: TargetFacts) -> None:
    path = pair.sample.target
    points, _ = read_point_table(path)
    facts.points = float(len(points))
    if not len(points):
        _report(pair, "no points", f"'{path}' lists no point", severity="warning")
    if pair.image is None or not len(points):
        return
    height, width = pair.image.size
    outside = ((points < -0.5) | (points >= np.array([width, height]) - 0.5)).any(1)
    if outside.any():
        message = f"{int(outside.sum())} of {len(points)} points in '{path}' lie outside its {height}x{width} image"
        if (points[:, ::-1] < np.array([width, height]) - 0.5).all():
            message += "; x and y seem to be exchanged"
        remedy = "correct the file: x points to the right and y down, in pixels from 0"
        _report(pair, "points outside", message, remedy)
    elif len(points) > 1 and points.min() >= 0 and points.max() <= 1:
        message = f"all points in '{path}' lie in the first pixel: they seem to be shares of the image size"
        remedy = f"multiply x by the width ({width}) and y by the height ({height})"
        _report(pair, "relative points", message, remedy)


def _judge_values(pair: CheckedPair, facts: TargetFacts, values: Array, data: Checkable) -> None:
    path, valid = pair.sample.target, valid_values(data, values)
    infinite = int(np.isinf(values).sum())
    if infinite:
        message = f"'{path}' holds {infinite} infinite values, which count as invalid"
        _report(pair, "infinite values", message, "write NaN for unknown values", "warning")
    if not valid.any():
        below = bool((values < 0).any())
        message = f"'{path}' has no valid value" + (f" above {data.invalid_below:g}" if below else "")
        remedy = "if all values are valid: --set data.invalid_below=null" if below else None
        _report(pair, "empty map", message, remedy)
        return
    _warn_if_constant(pair, facts)
    stored = np.where(valid, values / np.float32(data.scale), 0)
    saturated = int((np.rint(stored) == 65535).sum())
    if saturated > _SATURATED * stored.size:
        message = f"{saturated / stored.size:.1%} of '{path}' is 65535, which many sensors write for unknown values"
        _report(pair, "saturated values", message, "write 0 or NaN for unknown values", "warning")


def _judge_pixels(pair: CheckedPair, facts: TargetFacts, pixels: Array, data: Checkable) -> None:
    if not np.isfinite(pixels).any():
        _report(pair, "empty map", f"'{pair.sample.target}' has no valid pixel")
    else:
        _warn_if_constant(pair, facts)


def _warn_if_constant(pair: CheckedPair, facts: TargetFacts) -> None:
    if facts.constant:
        _report(pair, "constant map", f"'{pair.sample.target}' has one value everywhere", severity="warning")


def _value_facts(values: Array, valid: Array, kept: int) -> ValueFacts:
    known = values[valid].ravel()
    return ValueFacts(
        low=float(known.min(initial=np.inf)),
        high=float(known.max(initial=-np.inf)),
        total=float(known.sum(dtype=np.float64)),
        valid=known.size,
        pixels=values.size,
        some=known[:: max(1, known.size // kept)].astype(np.float32),
        negative=int(((values < 0) & np.isfinite(values)).sum()),
        zeros=int((values == 0).sum()),
    )


JUDGES: dict[TargetKind, Callable[[CheckedPair, TargetFacts, Array, Checkable], None]] = {
    "labels": _judge_labels,
    "masks": _judge_masks,
    "heat": _judge_heat,
    "density": _judge_density,
    "values": _judge_values,
    "pixels": _judge_pixels,
}
"""The function that judges each kind of target."""


def target_files(pair: CheckedPair) -> list[Path]:
    """The files that hold the target of a pair."""
    planes = [path for _, path in pair.sample.planes]
    return planes if pair.sample.plane_names else [pair.sample.target]
