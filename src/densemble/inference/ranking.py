"""Ranking of images by uncertainty: the least certain ones are most worth labelling."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from densemble.errors import UsageError
from densemble.storage.runs import write_text
from densemble.tasks import Task

RANKINGS = ("entropy", "mutual_information", "disagreement", "variance")


def require_ranked(by: str, task: Task) -> None:
    """Check that a task has an uncertainty map.

    Raises:
        UsageError: it has not; the message lists the available maps.
    """
    available = RANKINGS if task.distribution != "none" else ("variance",)
    if by not in available:
        raise UsageError(f"images of {task.name} cannot be ranked by '{by}'; available: {', '.join(available)}")


def write_ranking(path: Path, ranked: Sequence[tuple[Path, float]], by: str) -> Path:
    """Write a CSV of image and mean uncertainty, the least certain image first.

    Raises:
        ResourceError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", by])
    writer.writerows([str(image), f"{value:.6g}"] for image, value in sorted(ranked, key=lambda row: -row[1]))
    write_text(path, text.getvalue())
    return path
