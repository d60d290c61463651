"""data check: reads everything once, lists all problems with their remedies, and says what the data looks like."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from densemble.data.check.classes import judge_classes
from densemble.data.check.copies import judge_copies
from densemble.data.check.guess import guess_task
from densemble.data.check.names import judge_names, name_pairs
from densemble.data.check.pair import look
from densemble.data.check.problems import Severity, as_pattern, group, in_order
from densemble.data.check.scorable import judge_scorable
from densemble.data.check.seen import Seen
from densemble.data.check.sides import judge_sides
from densemble.data.check.subject import Checkable
from densemble.data.check.summary import named_classes, sum_up_images, sum_up_split
from densemble.data.check.uniformity import judge_uniformity
from densemble.errors import DataError, ResourceError

__all__ = ["check", "group", "guess_task", "write_leave_out"]

_KEPT = 1 << 20
_KEPT_PER_MAP = (64, 4096)


def check(data: Checkable, unpaired: Severity = "warning") -> dict[str, Any]:
    """Reads every pair of every split once, in parallel, and lists all problems at once.

    Args:
        data: the folder.
        unpaired: how bad files without a partner are; a folder that was opened was told to skip them.

    Returns:
        Plain values for JSON: ``data``, ``task``, ``layout``, ``split_by``, ``classes``, ``heat_max`` (of
        heat: what becomes 1), ``ok`` (no errors, though
        there may be warnings), ``images`` (mean and std per channel), ``splits``: facts by name, see
        :func:`densemble.data.check.summary.sum_up_split`, and ``problems``: each with ``kind``, ``file``,
        ``message``, ``remedy``, ``severity`` (error, warning), ``split``, ``pair``, ``partner``.
    """
    problems = list(judge_names(data, unpaired))
    _settle_channels(data)
    seen = _look_at_all(data)
    problems += [problem for one in seen for problem in one.problems]
    problems += [*judge_classes(data, seen), *judge_scorable(data, seen), *judge_sides(data)]
    problems += [*judge_uniformity(data, seen), *judge_copies(data, seen)]
    names = named_classes(data, seen)
    by_split = {split: [one for one in seen if one.split == split] for split in data.layout.splits}
    return {
        "data": str(data.path),
        "task": data.task_name,
        "layout": data.layout.name,
        "split_by": data.layout.split_by,
        "classes": names,
        "heat_max": data.reading.options["heat_max"] or None,
        "ok": not any(problem.severity == "error" for problem in problems),
        "pictures": sum_up_images(seen),
        "splits": {split: sum_up_split(data, members, names) for split, members in by_split.items()},
        "problems": [asdict(problem) for problem in in_order(problems)],
    }


def write_leave_out(facts: dict[str, Any], path: Path) -> int:
    """Writes the names of all pairs with errors for ``data.leave_out``, of leaking ones those of the training side.

    Args:
        facts: of :func:`check`.
        path: text file, one name per line.

    Returns:
        Number of names.

    Raises:
        ResourceError: the file cannot be written.
    """
    wrong = [problem["pair"] for problem in facts["problems"] if problem["severity"] == "error" and problem["pair"]]
    names = sorted(set(wrong))
    try:
        path.write_text("".join(f"{as_pattern(name)}\n" for name in names), encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another file") from error
    return len(names)


def _settle_channels(data: Checkable) -> None:
    """Lets the folder find out what decides how its maps are read: what all say together, and how many channels."""
    data.settle()
    if not data.reading.planes:
        return
    with suppress(DataError):  # its cause is found in the files, one by one
        _ = data.task


def _look_at_all(data: Checkable) -> list[Seen]:
    pairs = [(split, name, sample) for split, named in name_pairs(data.layout).items() for name, sample in named]
    kept = min(max(_KEPT // max(len(pairs), 1), _KEPT_PER_MAP[0]), _KEPT_PER_MAP[1])
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda pair: look(data, pair[0], pair[2], pair[1], kept), pairs))
