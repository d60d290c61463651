"""Reports splits whose targets mark nothing: there is nothing to learn, or nothing to score."""

from collections.abc import Iterator

from densemble.data.check.problems import Problem
from densemble.data.check.seen import CheckedData, TargetFacts
from densemble.tasks import TASKS

_MARKS = {"masks": "any class", "heat": "a point", "density": "an object"}
"""What targets of a kind mark. For other kinds, a single empty target is already an error."""


def judge_scorable(checked: CheckedData) -> Iterator[Problem]:
    """Problems of splits in which every target is empty, although a single empty target is valid."""
    data = checked.data
    target_kind = data.reading.kind
    if target_kind not in _MARKS or not TASKS[data.task_name].blank_is_valid:
        return
    for split in ("train",) if target_kind == "density" else ("train", "val"):  # a count of 0 can be scored
        targets = [target for pair, target in checked.targets if pair.split == split]
        if not targets or any(_marks(target) for target in targets):
            continue
        is_train = split == "train"
        kind = "nothing to learn" if is_train else "nothing to score"
        message = f"none of the {len(targets)} {split} maps shows {_MARKS[target_kind]}: there is {kind}"
        seeded = data.layout.split_by == "seed"
        remedy = "stratify the splits: --set data.stratify=true" if seeded else f"move some pairs that do into {split}"
        yield checked.problem(kind, message, remedy, split=split)


def _marks(target: TargetFacts) -> bool:
    if target.masks is not None:
        return any(pixels for pixels, _, _ in target.masks)
    if target.points is not None:
        return target.points > 0
    return target.values is not None and target.values.valid > 0 and target.values.high > 0
