"""Facts of a task that come from the training targets: the number of classes, and the scale of the values."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from densemble.data.layouts import Sample
from densemble.data.read_pairs import Reading, is_point_table
from densemble.data_options import DataOptions
from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage.images import read_planes
from densemble.storage.points import read_point_table
from densemble.tasks import TASKS

_SAMPLED = 50
_HIGHEST = tuple((1 << bits) - 1 for bits in (15, 16, 31, 32, 53, 63))
"""Highest numbers of integer types, and highest integers of floats; programs write them for unknown pixels."""
MANY_LABELS = 1024
"""Labels from this number on are classes only if at least half of the numbers below them occur."""
_FAR = 8
_TESTED_FOR_WHOLE = 5
_HIGHEST_SAVED = 65535
_FINE = 20
"""With a typical value below this number of units, rounding to whole units costs more than 2 %."""
Item = TypeVar("Item")


class Learnable(Protocol):
    """The interface of a data folder that describes its task."""

    path: Path
    task_name: str
    classes: list[str] | None
    ignore_index: int
    invalid_below: float | None
    options: DataOptions
    reading: Reading

    @property
    def train(self) -> tuple[Sample, ...]:
        """Training samples."""


def task_facts(data: Learnable) -> dict[str, Any]:
    """The arguments of ``make_task`` besides the name: every row of ``FACTS`` that is a field of the task.

    Raises:
        DataError: the training targets do not determine a fact.
    """
    facts: dict[str, Any] = {}
    for name in TASKS[data.task_name].choices():
        if name in FACTS:
            facts[name] = FACTS[name](data, facts)
    return facts


def _classes(data: Learnable) -> list[str]:
    """The named classes, or the numbers of the classes that the training targets show."""
    if data.classes:
        return data.classes
    counters = {"labels": _count_labels, "heat": _count_channels, "density": _count_channels}
    count = counters.get(data.reading.kind, _count_planes)(data)
    return [str(number) for number in range(count)]


def _scale(data: Learnable, channels: int) -> float:
    """A typical value, or a typical count; 1 for targets in [0, 1]."""
    if data.reading.kind == "values":
        return _typical_value(data)
    return _typical_count(data, channels) if data.reading.kind == "density" else 1.0


def evenly_spaced(items: Sequence[Item], count: int = _SAMPLED) -> Sequence[Item]:
    """Every n-th item, with n such that about ``count`` items result, and fewer than twice as many."""
    return items[:: max(1, len(items) // count)]


def _count_labels(data: Learnable) -> int:
    labels: set[int] = set()
    for sample in data.train:
        labels |= set(np.unique(data.reading.known_target(sample)).tolist())
    labels.discard(data.ignore_index)
    highest = max(labels, default=-1)
    if highest < 1:
        raise DataError(
            f"the training maps of '{data.path}' hold no label but 0 and {data.ignore_index}; for masks of 0 and 255 "
            "use --set 'data.label_map={255: 1}'"
        )
    if highest >= MANY_LABELS and 2 * len(labels) <= highest:
        setting = f"ignore_index={highest}" if is_void(highest, labels) else f"label_map={{{highest}: CLASS}}"
        raise DataError(
            f"the training maps of '{data.path}' hold only {len(labels)} of the {highest + 1} classes 0..{highest}; "
            f"set what {highest} means with --set 'data.{setting}', or look at all labels with `densemble data check`"
        )
    return highest + 1


def is_void(label: int, labels: Collection[int]) -> bool:
    """Whether a label seems to mean unknown: the highest number of a data type, or far above all other labels."""
    others = [other for other in labels if other not in (label, *_HIGHEST)]
    second = max(others, default=0)
    return second > 0 and (label in _HIGHEST or label >= max(MANY_LABELS, _FAR * second))


def labels_above(limit: int, samples: Sequence[Sample], reading: Reading) -> bool:
    """Whether label maps hold classes above ``limit``, which is at least 255; false if the first file has 8 bits."""
    files = [sample for sample in samples if sample.drawing is None]
    labels: set[int] = set()
    for sample in files if reading.color_map is None else ():
        try:
            if sample is files[0] and read_planes(sample.target).dtype.itemsize == 1:
                return False
            labels |= set(np.unique(reading.target(sample)).tolist())
        except DataError:
            continue  # reported when its pixels are read
    return any(label > limit and label not in _HIGHEST and not is_void(label, labels) for label in labels)


def _count_planes(data: Learnable) -> int:
    return int(data.reading.target(data.train[0]).shape[0])


def _count_channels(data: Learnable) -> int:
    """Number of channels of a heatmap: from the highest label of a point, or from the first target."""
    tables = [sample for sample in data.train if is_point_table(sample.target)]
    if not tables:
        return _count_planes(data)
    return 1 + max(int(read_point_table(sample.target)[1].max(initial=0)) for sample in tables)


def _typical_value(data: Learnable) -> float:
    means = []
    for sample in evenly_spaced(data.train):
        values = data.reading.known_target(sample)
        valid = valid_values(data, values)
        if valid.any():
            means.append(float(np.abs(values[valid]).mean()))
    if not means:
        raise DataError(
            f"no training map of '{data.path}' has a valid value; values up to {data.invalid_below} count as "
            "invalid: change this with --set data.invalid_below=null"
        )
    return float(np.mean(means)) or 1.0


def valid_values(data: Learnable, values: Array) -> Array:
    """Bool array: whether each value is finite and above ``invalid_below``."""
    finite: Array = np.isfinite(values)
    return finite if data.invalid_below is None else finite & (values > data.invalid_below)


def _is_whole(data: Learnable) -> bool:
    """Whether the files hold whole numbers of 16 bits in a fine unit; predictions are then saved in the same format.

    Coarse units such as whole metres do not qualify, because predictions would be rounded to metres. Negative and
    larger numbers do not qualify, because they would be clipped.
    """
    if _typical_value(data) / data.reading.options["scale"] < _FINE:
        return False
    for number, sample in enumerate(evenly_spaced(data.train)):
        values = data.reading.known_target(sample)
        known = values[valid_values(data, values)] / data.reading.options["scale"]
        if known.min(initial=0) < 0 or known.max(initial=0) > _HIGHEST_SAVED:
            return False
        if number < _TESTED_FOR_WHOLE and not np.allclose(known, known.round(), atol=1e-3):
            return False
    return True


def _typical_count(data: Learnable, channels: int) -> float:
    """Mean count per image and channel."""
    if is_point_table(data.train[0].target):
        counts = [len(read_point_table(sample.target)[1]) / channels for sample in data.train]
    else:
        counts = [float(data.reading.known_target(sample).sum()) / channels for sample in evenly_spaced(data.train)]
    return float(np.mean(counts)) or 1.0


FACTS: dict[str, Callable[[Learnable, dict[str, Any]], Any]] = {
    "classes": lambda data, known: _classes(data),
    "ignore_index": lambda data, known: data.ignore_index,
    "mode": lambda data, known: data.options["heatmap"],
    "scale": lambda data, known: _scale(data, len(known.get("classes", "1"))),
    "invalid_below": lambda data, known: data.invalid_below,
    "file_scale": lambda data, known: data.reading.options["scale"],
    "unit": lambda data, known: data.options["unit"],
    "whole": lambda data, known: _is_whole(data),
    "channels": lambda data, known: _count_planes(data),
}
"""By task field: the function that computes its value from the data and the facts of the previous fields."""
