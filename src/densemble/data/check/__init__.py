"""Data check: read every file once, and report all problems with their remedies, and facts about the data."""

import glob
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from densemble.data.check.classes import class_names, judge_classes
from densemble.data.check.copies import judge_copies
from densemble.data.check.guess import guess_task
from densemble.data.check.names import judge_names, name_pairs
from densemble.data.check.pair import check_pair
from densemble.data.check.problems import Severity, group, in_order
from densemble.data.check.scorable import judge_scorable
from densemble.data.check.seen import CheckedData
from densemble.data.check.sides import judge_sides
from densemble.data.check.subject import Checkable
from densemble.data.check.summary import sum_up_images, sum_up_split
from densemble.data.check.uniformity import judge_uniformity
from densemble.data.parallel import map_in_threads
from densemble.errors import DataError
from densemble.storage.writing import write_text

__all__ = ["check", "group", "guess_task", "write_leave_out"]

_KEPT_VALUES = 1 << 20
_KEPT_VALUES_PER_TARGET = (64, 4096)


def check(data: Checkable, unpaired: Severity = "warning") -> dict[str, Any]:
    """Read every pair of every split once, in parallel, and report all problems.

    Args:
        data: folder to check.
        unpaired: severity of files without a partner. The default is a warning, because a folder that could be
            opened has no such files or was opened with ``skip_unpaired``.

    Returns:
        Plain values for JSON: ``data``, ``task``, ``layout``, ``split_by``, ``classes``, ``heat_max`` (the value of
        heat that becomes 1), ``ok`` (no errors; there may be warnings), ``pictures`` (mean and standard deviation of
        the images per channel), ``splits`` (see :func:`densemble.data.check.summary.sum_up_split`) and ``problems``,
        each with ``kind``, ``file``, ``message``, ``remedy``, ``severity`` (error, warning), ``split``, ``pair`` and
        ``partner``.
    """
    problems = list(judge_names(data, unpaired))
    with suppress(DataError):  # the check of each file reports the cause
        data.settle_channels()
    checked = _check_pairs(data)
    problems += [problem for pair in checked.pairs for problem in pair.problems]
    for judge in (judge_classes, judge_scorable, judge_sides, judge_uniformity, judge_copies):
        problems += judge(checked)
    names = class_names(checked)
    return {
        "data": str(data.path),
        "task": data.task_name,
        "layout": data.layout.name,
        "split_by": data.layout.split_by,
        "classes": names,
        "heat_max": data.reading.options["heat_max"] or None,
        "ok": not any(problem.severity == "error" for problem in problems),
        "pictures": sum_up_images(checked),
        "splits": {split: sum_up_split(part, names or []) for split, part in checked.by_split.items()},
        "problems": [asdict(problem) for problem in in_order(problems)],
    }


def write_leave_out(facts: dict[str, Any], path: Path) -> int:
    """Write the names of all pairs with errors to a file for ``data.leave_out``.

    If the same image is in two splits, only the pair in the training split is written.

    Args:
        facts: result of :func:`check`.
        path: text file, one name per line.

    Returns:
        Number of names.

    Raises:
        ResourceError: the file cannot be written.
    """
    names = {problem["pair"] for problem in facts["problems"] if problem["severity"] == "error" and problem["pair"]}
    write_text(path, "".join(f"{glob.escape(name)}\n" for name in sorted(names)))
    return len(names)


def _check_pairs(data: Checkable) -> CheckedData:
    pairs = [(split, name, sample) for split, named in name_pairs(data.layout).items() for name, sample in named]
    lowest, highest = _KEPT_VALUES_PER_TARGET
    kept = min(max(_KEPT_VALUES // max(len(pairs), 1), lowest), highest)
    checked = map_in_threads(lambda pair: check_pair(data, pair[0], pair[2], pair[1], kept), pairs, "checking", "pairs")
    return CheckedData(data, checked)
