"""Ranking of images by uncertainty: labels for the least certain images are the most useful ones."""

from collections.abc import Sequence
from pathlib import Path

from densemble.errors import UsageError, did_you_mean
from densemble.storage.csv_cells import write_csv
from densemble.storage.writing import atomic_text
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
    rows = [[str(image), f"{value:.6g}"] for image, value in sorted(ranked, key=lambda row: -row[1])]
    with atomic_text(path, newline="") as file:
        write_csv(file, [["picture", by], *rows])
    return path
