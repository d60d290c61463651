"""Splits in which nothing is marked: there is nothing to learn, or nothing to score."""

from collections.abc import Iterator, Sequence

from densemble.data.check.problems import Problem
from densemble.data.check.seen import Seen, SeenMap
from densemble.data.check.subject import Checkable

_MARKS = {"masks": "any class", "heat": "a point", "density": "an object"}
"""What maps of a kind mark; of others, a map without anything is an error by itself."""


def judge_scorable(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    """What makes a whole split useless, though each of its maps may be meant."""
    kind = data.reading.kind
    if kind not in _MARKS or data.task_name == "saliency":
        return
    splits = {"train": "learn"} if kind == "density" else {"train": "learn", "val": "score"}  # a count of 0 is scored
    for split, what in splits.items():
        maps = [one.map for one in seen if one.split == split and one.map is not None]
        if not maps or any(_marks(found) for found in maps):
            continue
        message = f"none of the {len(maps)} {split} maps shows {_MARKS[kind]}: there is nothing to {what}"
        drawn = data.layout.split_by == "seed"
        remedy = "draw the splits alike: --set data.stratify=true" if drawn else f"move some pairs that do into {split}"
        yield Problem(f"nothing to {what}", str(data.path), message, remedy, split=split)


def _marks(found: SeenMap) -> bool:
    if found.masks is not None:
        return any(own for own, _ in found.masks)
    if found.points is not None:
        return found.points > 0
    return found.values is not None and found.values.valid > 0 and found.values.high > 0
