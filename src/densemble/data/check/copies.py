"""The same image twice: in one split, or in two, where it makes a score a lie."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from densemble.data.check.likeness import Likeness, find_alike
from densemble.data.check.problems import Problem, leaving_out
from densemble.data.check.seen import Seen, SeenImage
from densemble.data.check.subject import Checkable

_HELD_OUT = ("test", "val", "train")
"""Where an image is in several splits, it stays in the first of these."""

Shown = list[tuple[Seen, SeenImage]]


def judge_copies(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    """Images that occur twice, first those that are equal, then those that only look alike."""
    shown = [(one, one.image) for one in seen if one.image is not None and not one.image.constant]
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for one, image in shown:
        groups[image.digest].append(one)
    leaked: set[tuple[str, str]] = set()
    for group in groups.values():
        for problem in _equal(group):
            leaked.add((problem.split or "", problem.pair or ""))
            yield problem
    splits: dict[str, Shown] = {split: [] for split in _HELD_OUT}
    for one, image in shown:
        if one.split in splits and (one.split, one.name) not in leaked:
            splits[one.split].append((one, image))
    yield from _alike(data, splits["train"], splits["val"] + splits["test"])
    yield from _alike(data, splits["val"], splits["test"])


def _equal(group: list[Seen]) -> Iterator[Problem]:
    if len(group) < 2:
        return
    group = sorted(group, key=lambda one: _HELD_OUT.index(one.split) if one.split in _HELD_OUT else len(_HELD_OUT))
    kept: dict[str, Seen] = {}
    for one in group:
        if one.split not in kept and kept:
            first = group[0]
            message = f"'{one.sample.image}' is the same image as '{first.sample.image}' of {first.split}"
            yield _problem("leak", one, first, message, _leak_remedy(one))
        elif one.split in kept:
            yield _twice(one, kept[one.split])
        kept.setdefault(one.split, one)


def _twice(one: Seen, first: Seen) -> Problem:
    if one.map is not None and first.map is not None and one.map.digest != first.map.digest:
        message = f"'{one.sample.image}' is the same image as '{first.sample.image}', with another map"
        remedy = f"find out which map is right and leave the other pair out: {leaving_out(one.name)}"
        return _problem("two maps for one image", one, first, message, remedy)
    message = f"'{one.sample.image}' is the same image as '{first.sample.image}' of the same split"
    remedy = f"it counts twice; leave it out: {leaving_out(one.name)}"
    return Problem("image twice", str(one.sample.image), message, remedy, "warning", one.split, one.name, _path(first))


def _alike(data: Checkable, left: Shown, right: Shown) -> Iterator[Problem]:
    thumbnails = ([image.thumbnail for _, image in side] for side in (left, right))
    for found in find_alike(*thumbnails):
        one, other = left[found.left][0], right[found.right][0]
        how = f", {found.turn}" if found.turn else ""
        names = f"'{one.sample.image}' and '{other.sample.image}' of {other.split}{how}"
        if found.grade == "copy":
            message = f"{names}, are copies of one image (correlation {found.correlation:.3f})"
            yield _problem("near-duplicate", one, other, message, _leak_remedy(one))
        else:
            yield _neighbours(data, one, other, found, names)


def _neighbours(data: Checkable, one: Seen, other: Seen, found: Likeness, names: str) -> Problem:
    message = f"{names}, look alike (correlation {found.correlation:.3f}), as neighbours in a video do"
    grouped = "keep what belongs together in one split: --set data.group_by=EXPRESSION; or "
    remedy = f"{grouped if data.layout.split_by == 'seed' else ''}leave it out: {leaving_out(one.name)}"
    file = str(one.sample.image)
    return Problem("similar images", file, message, remedy, "warning", one.split, one.name, _path(other))


def _leak_remedy(one: Seen) -> str:
    return (
        f"leave it out of {one.split}: {leaving_out(one.name)}; for all of them at once "
        "`densemble data check DATA --leave-out leaks.txt`, then --set data.leave_out=leaks.txt"
    )


def _problem(kind: str, one: Seen, other: Seen, message: str, remedy: str) -> Problem:
    return Problem(kind, str(one.sample.image), message, remedy, "error", one.split, one.name, _path(other))


def _path(one: Seen) -> str:
    return str(one.sample.image)
