"""Confusion matrix, precision and recall of the predictions of a task with classes."""

from typing import Any

from torch import Tensor

from densemble.ensemble.resize import resize_to_target
from densemble.metrics.class_counts import ClassCounts
from densemble.tasks import Task


def class_counts(task: Task) -> ClassCounts | None:
    """Return empty counts for the classes of a task; ``None`` if its pixels have no classes."""
    if task.target_kind not in ("labels", "masks"):
        return None
    return ClassCounts(len(task.classes), task.target_kind, int(task.fill))


def count_image(counts: ClassCounts | None, task: Task, maps: Tensor, target: Tensor) -> None:
    """Add one image, if there are counts; its map ``(1, K, h, w)`` is resized to the size of the target."""
    if counts is not None:
        counts.update(resize_to_target(maps.float(), target, task)[0], target)


def class_values(counts: ClassCounts | None) -> dict[str, Any]:
    """Return the counts as plain values.

    Returns:
        ``precision`` and ``recall`` of each class, ``None`` where undefined, ``share`` of the target's pixels, and for
        labels ``confusion``: rows are target classes. Empty without counts or without a counted pixel.
    """
    if counts is None or not bool(counts.actual.any() or counts.predicted.any()):
        return {}
    values: dict[str, Any] = {
        "precision": _known(counts.precision()),
        "recall": _known(counts.recall()),
        "share": (counts.actual / counts.actual.sum().clamp(min=1)).tolist(),
    }
    if counts.confusion is not None:
        values["confusion"] = [[int(count) for count in row] for row in counts.confusion.tolist()]
    return values


def _known(values: Tensor) -> list[float | None]:
    return [value if value == value else None for value in values.tolist()]
