"""data check: reads everything once, lists all problems with their remedies, and says what the data looks like."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from densemble.data.layouts import Layout, Sample
from densemble.errors import DataError
from densemble.storage.images import read_points

Array = np.ndarray[Any, Any]


class Readable(Protocol):
    """What is needed of a data folder to check it."""

    path: Path
    task_name: str
    layout: Layout
    ignore_index: int
    invalid_below: float | None

    def read_pair(self, sample: Sample) -> tuple[Array, Array]:
        """Picture and map of equal size."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what kind, in which file, and what to do."""

    kind: str
    file: str
    message: str


def check(data: Readable) -> dict[str, Any]:
    """Reads every pair of every split once.

    Returns:
        ``{"data", "task", "ok", "splits": {name: facts}, "problems": [{"kind", "file", "message"}]}``.
    """
    problems = [
        Problem("unpaired", str(file), f"'{file}' has no partner of the same stem; add it or remove this file")
        for file in data.layout.unpaired
    ]
    splits = {}
    for name, samples in data.layout.splits.items():
        facts, found = _check_split(data, name)
        splits[name] = {"pairs": len(samples), **facts}
        problems += found
    for name in ("train", "val"):
        if not data.layout.splits.get(name):
            problems.append(Problem("empty split", str(data.path / name), f"there are no {name} pairs; add some"))
    return {
        "data": str(data.path),
        "task": data.task_name,
        "split_by": data.layout.split_by,
        "ok": not problems,
        "splits": splits,
        "problems": [asdict(problem) for problem in problems],
    }


def _check_split(data: Readable, split: str) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []
    sizes: Counter[str] = Counter()
    labels: Counter[int] = Counter()
    low, high, invalid, pixels, with_points = np.inf, -np.inf, 0, 0, 0
    for sample in data.layout.splits[split]:
        try:
            image, target = data.read_pair(sample)
            if sample.points is not None:
                with_points += 1
                _check_points(read_points(sample.points), image.shape[:2], str(sample.points))
        except DataError as error:
            problems.append(Problem("unusable pair", str(sample.image), str(error)))
            continue
        sizes[f"{image.shape[0]}x{image.shape[1]}"] += 1
        pixels += target.size
        if data.task_name == "segmentation":
            values, counts = np.unique(target, return_counts=True)
            labels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            continue
        if data.task_name == "saliency" and not target.any():
            problems.append(
                Problem("empty map", str(sample.target), f"'{sample.target}' is 0 everywhere; remove the pair")
            )
        valid = np.isfinite(target)
        if data.task_name != "saliency" and data.invalid_below is not None:
            valid &= target > data.invalid_below
        invalid += int(target.size - valid.sum())
        if valid.any():
            low, high = min(low, float(target[valid].min())), max(high, float(target[valid].max()))
    facts: dict[str, Any] = {"sizes": dict(sizes.most_common(5)), "with_fixations": with_points}
    if data.task_name == "segmentation":
        total = max(sum(labels.values()), 1)
        facts["label_share"] = {str(label): round(labels[label] / total, 5) for label in sorted(labels)}
        facts["ignored_share"] = round(labels.get(data.ignore_index, 0) / total, 5)
    elif pixels:
        facts["values"] = [low, high] if high >= low else None
        facts["invalid_share"] = round(invalid / pixels, 5)
    return facts, problems


def _check_points(points: Any, size: tuple[int, ...], name: str) -> None:
    if points.shape != tuple(size):
        raise DataError(
            f"fixations '{name}' are {points.shape[0]}x{points.shape[1]}, the picture is {size[0]}x{size[1]}"
        )
    if not points.any():
        raise DataError(f"fixations '{name}' hold no point; remove the file")
