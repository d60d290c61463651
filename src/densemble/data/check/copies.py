"""Reports images that occur twice, in one split or in two splits; in two splits they falsify the score."""

from collections import defaultdict
from collections.abc import Iterator

from densemble.data.check.likeness import Likeness, find_alike
from densemble.data.check.problems import Problem, leaving_out
from densemble.data.check.seen import CheckedData, CheckedPair, ImageFacts

_PRIORITY = ("test", "val", "train")
"""An image that occurs in several splits stays in the first of these."""


def judge_copies(checked: CheckedData) -> Iterator[Problem]:
    """Problems of images that occur twice: first equal images, then images that only look alike."""
    images = [(pair, image) for pair, image in checked.images if not image.constant]
    groups: dict[bytes, list[CheckedPair]] = defaultdict(list)
    for pair, image in images:
        groups[image.digest].append(pair)
    leaked: set[tuple[str | None, str | None]] = set()
    for group in groups.values():
        for problem in _equal(checked, group):
            leaked.add((problem.split, problem.pair))
            yield problem
    splits: dict[str, list[tuple[CheckedPair, ImageFacts]]] = {split: [] for split in _PRIORITY}
    for pair, image in images:
        if pair.split in splits and (pair.split, pair.name) not in leaked:
            splits[pair.split].append((pair, image))
    for left, right in ((splits["train"], splits["val"] + splits["test"]), (splits["val"], splits["test"])):
        for likeness in find_alike([image.thumbnail for _, image in left], [image.thumbnail for _, image in right]):
            yield _alike(checked, left[likeness.left][0], right[likeness.right][0], likeness)


def _equal(checked: CheckedData, group: list[CheckedPair]) -> Iterator[Problem]:
    if len(group) < 2:
        return
    group = sorted(group, key=lambda pair: _PRIORITY.index(pair.split) if pair.split in _PRIORITY else len(_PRIORITY))
    first_of_split: dict[str, CheckedPair] = {}
    for pair in group:
        first = first_of_split.setdefault(pair.split, pair)
        if first is not pair:
            yield _twice(pair, first)
        elif pair is not group[0]:
            message = f"'{pair.sample.image}' is the same image as '{group[0].sample.image}' of {group[0].split}"
            yield _leak(checked, "leak", pair, group[0], message)


def _twice(pair: CheckedPair, first: CheckedPair) -> Problem:
    image, earlier = pair.sample.image, first.sample.image
    message = f"'{image}' is the same image as '{earlier}'"
    if pair.target is not None and first.target is not None and pair.target.digest != first.target.digest:
        remedy = f"check which map is right and leave the other pair out: {leaving_out(pair.name)}"
        kind = "two maps for one image"
        return pair.problem(kind, image, f"{message}, with another map", remedy, partner=str(earlier))
    remedy = f"it counts twice; leave it out: {leaving_out(pair.name)}"
    return pair.problem("image twice", image, f"{message} of the same split", remedy, "warning", str(earlier))


def _alike(checked: CheckedData, pair: CheckedPair, other: CheckedPair, likeness: Likeness) -> Problem:
    image, partner = pair.sample.image, other.sample.image
    turn = f", {likeness.turn}" if likeness.turn else ""
    names = f"'{image}' and '{partner}' of {other.split}{turn}"
    correlation = f"(correlation {likeness.correlation:.3f})"
    if likeness.grade == "copy":
        return _leak(checked, "near-duplicate", pair, other, f"{names}, are copies of one image {correlation}")
    message = f"{names}, look alike {correlation}, like neighbouring frames of a video"
    remedy = f"{_grouping(checked, pair, other)}leave it out: {leaving_out(pair.name)}"
    return pair.problem("similar images", image, message, remedy, "warning", str(partner))


def _leak(checked: CheckedData, kind: str, pair: CheckedPair, other: CheckedPair, message: str) -> Problem:
    remedy = f"{_grouping(checked, pair, other)}leave it out of {pair.split}: {leaving_out(pair.name)}"
    if checked.data.options["val_from_train"] is None:  # the command does not know these splits
        remedy += (
            "; for all of them at once `densemble data check DATA --leave-out leaks.txt`, then "
            "--set data.leave_out=leaks.txt"
        )
    return pair.problem(kind, pair.sample.image, message, remedy, partner=str(other.sample.image))


def _grouping(checked: CheckedData, pair: CheckedPair, other: CheckedPair) -> str:
    """The advice to group related images, if the split that separates the two is drawn at random."""
    if checked.data.options["val_from_train"] is not None:
        drawn = {pair.split, other.split} == {"train", "val"}
    else:
        drawn = checked.data.layout.split_by == "seed"
    expression = "--set data.group_by=EXPRESSION, which matches the group in each name"
    return f"keep related images in one split: {expression}; or " if drawn else ""
