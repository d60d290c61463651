"""What the training maps say about a task: how many classes there are, and the scale of the values."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

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
"""Highest numbers of integer types, and of those that a float can hold; programs write them where nothing is known."""
MANY_LABELS = 1024
"""From here on labels are taken for classes only where half of the numbers below occur."""
_FAR = 8
_ASKED_WHETHER_WHOLE = 5
_MOST = 65535
_FINE = 20
"""Below a typical value of so many units, rounding to whole ones costs more than 2 %."""


class Learnable(Protocol):
    """What is needed of a data folder to describe its task."""

    path: Any
    task_name: str
    classes: list[str] | None
    ignore_index: int
    invalid_below: float | None
    options: DataOptions
    reading: Reading

    @property
    def train(self) -> tuple[Sample, ...]:
        """Samples to learn from."""


def task_facts(data: Learnable) -> dict[str, Any]:
    """The values that ``make_task`` needs beside the name: every row of ``FACTS`` that is a field of the task.

    Raises:
        DataError: the training maps say nothing.
    """
    facts: dict[str, Any] = {}
    for name in TASKS[data.task_name].choices():
        if name in FACTS:
            facts[name] = FACTS[name](data, facts)
    return facts


def _numbered(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _classes(data: Learnable) -> list[str]:
    """The named classes, or numbers for as many as the training maps show."""
    counters = {"labels": _count_labels, "heat": _count_channels, "density": _count_channels}
    return data.classes or _numbered(counters.get(data.reading.kind, _count_planes)(data))


def _scale(data: Learnable, channels: int) -> float:
    """A typical value, or a typical count; 1 where targets are in [0, 1]."""
    if data.reading.kind == "values":
        return _typical_value(data)
    return _typical_count(data, channels) if data.reading.kind == "density" else 1.0


def _evenly(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[:: max(1, len(samples) // _SAMPLED)]


def _count_labels(data: Learnable) -> int:
    found: set[int] = set()
    for sample in data.train:
        found |= set(np.unique(data.reading.known_target(sample)).tolist())
    found.discard(data.ignore_index)
    highest = max(found, default=-1)
    if highest < 1:
        raise DataError(
            f"the training maps of '{data.path}' hold no label but 0 and {data.ignore_index}; for masks of 0 and 255 "
            "say --set 'data.label_map={255: 1}'"
        )
    if highest >= MANY_LABELS and 2 * len(found) <= highest:
        what = f"ignore_index={highest}" if is_void(highest, found) else f"label_map={{{highest}: CLASS}}"
        raise DataError(
            f"the training maps of '{data.path}' hold {len(found)} labels up to {highest}: {highest + 1} classes, most "
            f"of which do not occur; say what {highest} means with --set 'data.{what}', or look at all labels with "
            "`densemble data check`"
        )
    return highest + 1


def is_void(label: int, labels: Collection[int]) -> bool:
    """Whether a label beside others seems to stand for no class: a type's highest number, or far above them all."""
    others = [other for other in labels if other not in (label, *_HIGHEST)]
    second = max(others, default=0)
    return second > 0 and (label in _HIGHEST or label >= max(MANY_LABELS, _FAR * second))


def labels_above(limit: int, samples: Sequence[Sample], reading: Reading) -> bool:
    """Whether label maps hold classes above a number; maps of 8 bits cannot hold any above 255."""
    files = [sample for sample in samples if sample.drawing is None]
    found: set[int] = set()
    for sample in files if reading.color_map is None else ():
        try:
            if sample is files[0] and read_planes(sample.target).dtype.itemsize == 1:
                return False
            found |= set(np.unique(reading.target(sample)).tolist())
        except DataError:
            continue  # whoever reads it for its pixels says so
    return any(label > limit and label not in _HIGHEST and not is_void(label, found) for label in found)


def _count_planes(data: Learnable) -> int:
    return int(data.reading.target(data.train[0]).shape[0])


def _count_channels(data: Learnable) -> int:
    """Channels of a heatmap: the highest label of a point, or the planes of the first map."""
    tables = [sample for sample in data.train if is_point_table(sample.target)]
    if not tables:
        return _count_planes(data)
    return 1 + max(int(read_point_table(sample.target)[1].max(initial=0)) for sample in tables)


def _typical_value(data: Learnable) -> float:
    means = []
    for sample in _evenly(data.train):
        values = data.reading.known_target(sample)
        valid = _valid(data, values)
        if valid.any():
            means.append(float(np.abs(values[valid]).mean()))
    if not means:
        raise DataError(
            f"no training map of '{data.path}' has a valid value; values up to {data.invalid_below} count as "
            "invalid: change that with --set data.invalid_below=null"
        )
    return float(np.mean(means)) or 1.0


def _valid(data: Learnable, values: Array) -> Array:
    finite: Array = np.isfinite(values)
    return finite if data.invalid_below is None else finite & (values > data.invalid_below)


def _is_whole(data: Learnable) -> bool:
    """Whether the files hold whole numbers of 16 bits in a fine unit: predictions are then saved as such, in the same.

    Whole metres are no reason to round predictions to metres; negative and larger numbers would be cut off.
    """
    if _typical_value(data) / data.reading.options["scale"] < _FINE:
        return False
    for number, sample in enumerate(_evenly(data.train)):
        values = data.reading.known_target(sample)
        known = values[_valid(data, values)] / data.reading.options["scale"]
        if known.min(initial=0) < 0 or known.max(initial=0) > _MOST:
            return False
        if number < _ASKED_WHETHER_WHOLE and not np.allclose(known, known.round(), atol=1e-3):
            return False
    return True


def _typical_count(data: Learnable, channels: int) -> float:
    """Mean count per image and channel."""
    if is_point_table(data.train[0].target):
        counts = [len(read_point_table(sample.target)[1]) / channels for sample in data.train]
    else:
        counts = [float(data.reading.known_target(sample).sum()) / channels for sample in _evenly(data.train)]
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
"""By the name of a task's field: its value from the data, given the facts of the fields before it."""
