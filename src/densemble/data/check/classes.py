"""Labels and masks of the whole set: numbers that are no class, and how the classes are spread."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from densemble.data.check.patterns import gaps
from densemble.data.check.problems import Problem
from densemble.data.check.seen import Seen
from densemble.data.check.subject import Checkable
from densemble.data.facts import MANY_LABELS, is_void
from densemble.metrics.multilabel import IGNORED

_RARE = 0.001
_MOSTLY = 1 / 3
_WRITTEN = 32
_SHOWN = 5


def class_names(data: Checkable, seen: Sequence[Seen]) -> list[str] | None:
    """Names of the classes: those that are known, else the numbers up to the highest label; ``None`` without any."""
    if data.classes:
        return list(data.classes)
    labels = _found(data, seen)
    labels = {label for label in labels if not is_void(label, labels)}
    if labels and max(labels) >= MANY_LABELS and gaps(labels):
        return None
    if labels:
        return [str(number) for number in range(max(labels) + 1)]
    masks = max((len(one.map.masks) for one in seen if one.map is not None and one.map.masks is not None), default=0)
    return [str(number) for number in range(masks)] or None


def class_pixels(data: Checkable, seen: Sequence[Seen], count: int) -> tuple[list[int], list[int], list[int]]:
    """Per class: its pixels, the pixels where it is known whether they are it, and the images that show it."""
    pixels, known, images = [0] * count, [0] * count, [0] * count
    for one in seen:
        if one.map is None or one.map.spoilt:
            continue
        if one.map.labels is not None:
            labelled = sum(n for label, n in one.map.labels.items() if label != data.ignore_index)
            rows = [(one.map.labels.get(i, 0) if i != data.ignore_index else 0, labelled) for i in range(count)]
        else:
            rows = [(own, total) for own, total, _ in one.map.masks or []]
        for i, (own, total) in enumerate(rows[:count]):
            pixels[i] += own
            known[i] += total
            images[i] += own > 0
    return pixels, known, images


def judge_classes(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    """What is wrong with the labels of the whole set."""
    labels = _found(data, seen)
    binary = list(_black_and_white(data, seen))
    if binary:
        yield from binary
        return
    outside = list(_outside(data, seen))
    yield from outside
    if data.classes is None and labels and not outside:
        wrong = list(_void(data, seen, labels)) or list(_gaps(data, seen, labels))
        if wrong:
            yield from wrong
            return
    yield from _mostly_ignored(data, seen, labels)
    names = class_names(data, seen)
    if names is None:
        return
    yield from _mixed_white(data, names)
    yield from _spread(data, seen, names)


def ignored(data: Checkable, seen: Sequence[Seen]) -> tuple[int, float]:
    """The label that is ignored, and its share of all pixels."""
    if data.reading.kind == "labels":
        return data.ignore_index, label_shares(seen).get(data.ignore_index, 0.0)
    counts = [row for one in seen if one.map is not None for row in one.map.masks or []]
    known, pixels = (sum(row[place] for row in counts) for place in (1, 2))
    return IGNORED, 1 - known / pixels if pixels else 0.0


def _mostly_ignored(data: Checkable, seen: Sequence[Seen], labels: set[int]) -> Iterator[Problem]:
    if data.reading.kind not in ("labels", "masks"):
        return
    label, share = ignored(data, seen)
    if share <= _MOSTLY:
        return
    message = f"label {label} is ignored, and it covers {share:.0%} of the pixels: nothing is learnt or scored there"
    meant = f"; where it means nothing, say so: --set data.ignore_index={label}" if data.ignored_by_default else ""
    remedy = f"where it is a class, say which: {_numbered(data, {label: _free(data, labels)})}{meant}"
    if data.reading.kind == "labels" and not data.ignored_by_default:
        remedy = "where it is a class, ignore another label: --set data.ignore_index=LABEL"
    yield Problem("mostly ignored", str(data.path), message, remedy, "warning")


def _free(data: Checkable, labels: set[int]) -> int:
    """Number of a class that no map shows."""
    if data.reading.kind == "masks":
        return 1
    return next(number for number in range(len(labels) + 1) if number not in labels)


def _numbered(data: Checkable, numbers: Mapping[int, int]) -> str:
    """The flag for a label map with what it says already: it is given as a whole."""
    given: dict[Any, Any] = {**(data.options["label_map"] or {}), **numbers}
    written = ", ".join(f"{label}: {number}" for label, number in given.items())
    return f"--set 'data.label_map={{{written}}}'"


def _void(data: Checkable, seen: Sequence[Seen], labels: set[int]) -> Iterator[Problem]:
    """A label that is taken for no class: the highest that a file can hold, or far above the others."""
    void = sorted(label for label in labels if is_void(label, labels))
    if not void:
        return
    shares = label_shares(seen)
    message = (
        f"labels {_some(void)} cover {sum(shares[label] for label in void):.1%} of the pixels and stand far above the "
        "others: they seem to mean that nothing is known there"
    )
    if len(void) == 1 and _may_ignore_another(data, seen):
        remedy = f"ignore it: --set data.ignore_index={void[0]}"
    else:
        remedy = f"ignore them: {_numbered(data, dict.fromkeys(void, data.ignore_index))}"
    yield Problem("void label", str(data.path), message, remedy)


def _gaps(data: Checkable, seen: Sequence[Seen], labels: set[int]) -> Iterator[Problem]:
    renumbered = gaps(labels)
    if not renumbered:
        return
    message = f"the labels are {_some(sorted(labels))}: {max(labels) + 1} classes, of which {len(labels)} occur"
    label, share = ignored(data, seen)
    with_ignored = gaps(labels | {label})
    flags = [_numbered(data, renumbered)]
    remedy = f"number them from 0: {flags[0]}"
    if data.ignored_by_default and share and with_ignored:
        message += f"; label {label}, which is ignored, covers {share:.0%}"
        both = _numbered(data, with_ignored)
        remedy = f"number them from 0: {both}"
        if share <= _MOSTLY:
            remedy = f"number them from 0: {flags[0]}, or where {label} is a class too: {both}"
    yield Problem("gaps in labels", str(data.path), message, remedy)


def _labelled(seen: Sequence[Seen]) -> list[tuple[Seen, dict[int, int]]]:
    pairs = ((one, one.map) for one in seen if one.map is not None and not one.map.spoilt)
    return [(one, found.labels) for one, found in pairs if found.labels is not None]


def _found(data: Checkable, seen: Sequence[Seen]) -> set[int]:
    """Labels that occur, without the ignored one."""
    return {label for _, labels in _labelled(seen) for label in labels} - {data.ignore_index}


def _black_and_white(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    pairs = _labelled(seen)
    everything = {label for _, labels in pairs for label in labels}
    if 255 not in everything or not everything <= {0, 1, 255}:
        return
    if 1 in everything and (not data.ignored_by_default or any(1 in labels and 255 in labels for _, labels in pairs)):
        return  # 255 is unknown beside the class 1
    among = "other files hold 1 for the class" if 1 in everything else "black would be the only class"
    unless = "" if 1 not in everything else ", or where it means nothing: --set data.ignore_index=255"
    for one, labels in pairs:
        if 255 in labels:
            message = f"'{one.sample.target}' holds 0 and 255: white counts as ignored, {among}"
            remedy = f"say that white is class 1: --set 'data.label_map={{255: 1}}'{unless}"
            yield Problem("0/255 mask", str(one.sample.target), message, remedy, split=one.split)


def _mixed_white(data: Checkable, names: Sequence[str]) -> Iterator[Problem]:
    order = data.reading.order or range(len(names))
    for name, channel in zip(names, order, strict=False):
        if channel in data.reading.mask_values.mixed:
            message = f"some masks of class '{name}' hold 0 and 1, others 0 and 255: both are taken for the class"
            remedy = "where 255 means unknown, say so: --set 'data.label_map={255: 255}'"
            yield Problem("mixed masks", str(data.path), message, remedy, "warning")


def _outside(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    count = len(data.classes) if data.classes else None
    pairs = _labelled(seen)
    wrong = {one.name: _wrong(labels, count, data.ignore_index) for one, labels in pairs}
    everywhere = sorted({label for labels in wrong.values() for label in labels})
    for one, _ in pairs:
        if not wrong[one.name]:
            continue
        of = f"the {count} classes 0..{count - 1}" if count else "the numbers from 0"
        message = f"'{one.sample.target}' has labels {_some(wrong[one.name])} outside {of}"
        remedy = _outside_remedy(data, everywhere, seen, count)
        file = str(one.sample.target)
        yield Problem("labels outside classes", file, message, remedy, split=one.split, pair=one.name)


def _wrong(labels: dict[int, int], count: int | None, ignored: int) -> list[int]:
    return [label for label in labels if label != ignored and (label < 0 or (count is not None and label >= count))]


def _outside_remedy(data: Checkable, wrong: list[int], seen: Sequence[Seen], count: int | None) -> str:
    found = _found(data, seen)
    if count is not None and wrong == [count] and 0 not in found:
        counted_from_one = {label: label - 1 for label in range(1, count + 1)}
        return f"where labels are counted from 1, say {_numbered(data, counted_from_one)}"
    more = "name more classes in classes.txt or by --set data.classes=[...]"
    if len(wrong) > _WRITTEN:
        return f"where they are classes, {more}; else choose the task that the maps are for"
    if len(wrong) == 1 and is_void(wrong[0], found) and _may_ignore_another(data, seen):
        return f"where it means nothing, ignore it: --set data.ignore_index={wrong[0]}"
    ignoring = _numbered(data, dict.fromkeys(wrong, data.ignore_index))
    if any(label < 0 for label in wrong):
        return f"where they mean nothing, ignore them: {ignoring}"
    return f"ignore them: {ignoring}, or {more}"


def _may_ignore_another(data: Checkable, seen: Sequence[Seen]) -> bool:
    """Whether the label that is ignored by default is of no use here."""
    return data.ignored_by_default and data.ignore_index not in label_shares(seen)


def _spread(data: Checkable, seen: Sequence[Seen], names: list[str]) -> Iterator[Problem]:
    splits = {split: [one for one in seen if one.split == split] for split in data.layout.splits}
    counted = {split: class_pixels(data, members, len(names)) for split, members in splits.items() if members}
    if "train" not in counted:
        return
    pixels, known, images = counted["train"]
    others = [split for split in counted if split != "train"]
    here = str(data.path)
    learnt = [i for i in range(len(names)) if pixels[i]]
    if data.reading.kind == "labels" and len(learnt) < 2:
        only = f"'{names[learnt[0]]}' alone" if learnt else "no class"
        yield Problem("one class", here, f"the training maps show {only}", "add maps of what is to be found")
        return
    stratified = "--set data.stratify=true" if data.layout.split_by == "seed" else "move some images between the splits"
    for i, name in enumerate(names):
        where = [split for split in others if counted[split][0][i]]
        if i == data.ignore_index:
            continue
        if not pixels[i] and where:
            message = f"class '{name}' is in {' and '.join(where)}, but in no training map"
            yield Problem("class not in train", here, message, f"it cannot be learnt: {stratified}, or ignore it")
        elif not pixels[i]:
            message, remedy = f"class '{name}' is in no map", "take it out of the class names, or add maps of it"
            yield Problem("absent class", here, message, remedy, "warning")
        elif "val" in counted and not counted["val"][0][i]:
            message = f"class '{name}' is in no validation map: its score is unknown"
            yield Problem("class not in val", here, message, stratified, "warning")
        if pixels[i] and pixels[i] < _RARE * known[i]:
            message = f"class '{name}' covers {pixels[i] / known[i]:.3%} of the training maps, in {images[i]} of them"
            remedy = "weigh the classes: --set class_weights=balanced, or choose --set loss=dice"
            yield Problem("rare class", here, message, remedy, "warning")


def label_shares(seen: Sequence[Seen]) -> dict[int, float]:
    """Label -> share of all pixels, the ignored ones too."""
    total: Counter[int] = Counter()
    for one in seen:
        if one.map is not None and one.map.labels is not None:
            total.update(one.map.labels)
    pixels = max(sum(total.values()), 1)
    return {label: total[label] / pixels for label in sorted(total)}


def _some(labels: Sequence[int]) -> str:
    shown = ", ".join(str(label) for label in labels[:_SHOWN])
    return f"{shown} and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else shown
