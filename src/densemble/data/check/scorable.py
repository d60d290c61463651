"""Splits in which nothing is marked: there is nothing to learn, or nothing to score."""

from collections.abc import Iterator, Sequence

from densemble.data.check.problems import Problem
from densemble.data.check.seen import Seen, SeenMap
from densemble.data.check.subject import Checkable
from densemble.tasks import TASKS

_MARKS = {"masks": "any class", "heat": "a point", "density": "an object"}
"""What maps of a kind mark; of others, a map without anything is an error by itself."""


def judge_scorable(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    """What makes a whole split useless, though each of its maps may be meant."""
    of_maps = data.reading.kind
    if of_maps not in _MARKS or not TASKS[data.task_name].blank_is_valid:
        return
    for split in ("train",) if of_maps == "density" else ("train", "val"):  # a count of 0 can be scored
        maps = [one.map for one in seen if one.split == split and one.map is not None]
        if not maps or any(_marks(found) for found in maps):
            continue
        learnt = split == "train"
        kind = "nothing to learn" if learnt else "nothing to score"
        message = f"none of the {len(maps)} {split} maps shows {_MARKS[of_maps]}: there is {kind}"
        drawn = data.layout.split_by == "seed"
        remedy = "draw the splits alike: --set data.stratify=true" if drawn else f"move some pairs that do into {split}"
        yield Problem(kind, str(data.path), message, remedy, split=split)


def _marks(found: SeenMap) -> bool:
    if found.masks is not None:
        return any(one[0] for one in found.masks)
    if found.points is not None:
        return found.points > 0
    return found.values is not None and found.values.valid > 0 and found.values.high > 0
