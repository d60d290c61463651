"""Ranking of images by uncertainty: labels for the least certain images are the most useful ones."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from densemble.errors import UsageError, did_you_mean
from densemble.storage.runs import write_text
from densemble.tasks import Task

RANKINGS = ("entropy", "mutual_information", "disagreement", "variance")


def require_ranked(by: str, task: Task) -> None:
    """Check that images of a task can be ranked by the uncertainty map ``by``.

    Raises:
        UsageError: the task does not have this map; the message lists the available maps.
    """
    available = RANKINGS if task.distribution != "none" else ("variance",)
    if by not in available:
        hint = did_you_mean(by, available)
        raise UsageError(
            f"images of task '{task.name}' cannot be ranked by '{by}'; {hint}available: {', '.join(available)}"
        )


def write_ranking(path: Path, ranked: Sequence[tuple[Path, float]], by: str) -> Path:
    """Write a CSV file with each image and its mean uncertainty, the least certain image first.

    Raises:
        ResourceError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", by])
    writer.writerows([str(image), f"{value:.6g}"] for image, value in sorted(ranked, key=lambda row: -row[1]))
    write_text(path, text.getvalue())
    return path
