"""Choice of the images that a report shows: the best, the worst and the most disputed ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PER_GROUP = 3
_RANKS = ("", "second ", "third ")


@dataclass(frozen=True)
class ChosenImage:
    """An image of the report.

    Attributes:
        number: index of the image in its split.
        score: score of the ensemble on the image; ``None`` if it is undefined.
        caption: why the image is shown.
        leading: whether it is the first one of its group.
    """

    number: int
    score: float | None
    caption: str
    leading: bool


def choose_images(rows: Sequence[Mapping[str, Any]], higher_is_better: bool, members: int) -> list[ChosenImage]:
    """Choose up to three images per group; an image of several groups is chosen once.

    Args:
        rows: ``number``, ``score`` and ``disagreement`` of each image.
        higher_is_better: whether a higher score is better.
        members: number of members; the predictions of one member cannot disagree.

    Returns:
        The first image of each group, then the others.
    """
    sign = -1 if higher_is_better else 1
    by_score = sorted((row for row in rows if row["score"] is not None), key=lambda row: sign * row["score"])
    disputed = sorted((row for row in rows if row["disagreement"] is not None), key=lambda row: -row["disagreement"])
    groups = {"best": by_score, "worst": by_score[::-1], "most disputed": disputed if members > 1 else []}
    captions: dict[int, list[str]] = {}
    scores = {row["number"]: row["score"] for row in rows}
    leading: list[int] = []
    for group, ordered in groups.items():
        shown = [row["number"] for row in ordered[:PER_GROUP]]
        first = next((number for number in shown if number not in leading), None)
        for rank, number in zip(_RANKS, shown, strict=False):
            position = 0 if number == first else len(captions.get(number, []))
            captions.setdefault(number, []).insert(position, f"{rank}{group}")
        leading += [] if first is None else [first]
    order = [*leading, *(number for number in captions if number not in leading)]
    return [ChosenImage(number, scores[number], ", ".join(captions[number]), number in leading) for number in order]
