"""Checks the labels and masks of the whole data set: numbers that are no class, and the distribution of the classes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from densemble.data.check.patterns import gaps
from densemble.data.check.problems import Problem
from densemble.data.check.seen import CheckedData
from densemble.data.facts import MANY_LABELS, is_void
from densemble.data.read_pairs import first_few
from densemble.metrics.multilabel import IGNORED

_RARE = 0.001
_MOSTLY = 1 / 3
_LISTED_IN_REMEDY = 32


def class_names(checked: CheckedData) -> list[str] | None:
    """Names of the classes: the known names, else the numbers up to the highest label; ``None`` without classes."""
    if checked.data.classes:
        return list(checked.data.classes)
    labels = {label for label in checked.labels if not is_void(label, checked.labels)}
    if labels and max(labels) >= MANY_LABELS and gaps(labels):
        return None
    masks = max((len(target.masks) for _, target in checked.targets if target.masks is not None), default=0)
    return [str(number) for number in range(max(labels) + 1 if labels else masks)] or None


def class_pixels(checked: CheckedData, count: int) -> tuple[list[int], list[int], list[int]]:
    """Per class: number of its pixels, of the pixels at which the class is known, and of the images that show it."""
    pixels, known, images = [0] * count, [0] * count, [0] * count
    ignored = checked.data.ignore_index
    for _, target in checked.targets:
        if target.spoilt:
            continue
        if target.labels is not None:
            labelled = {label: number for label, number in target.labels.items() if label != ignored}
            total = sum(labelled.values())
            counts = [(labelled.get(label, 0), total) for label in range(count)]
        else:
            counts = [(marked, total) for marked, total, _ in target.masks or []]
        for label, (marked, total) in enumerate(counts[:count]):
            pixels[label] += marked
            known[label] += total
            images[label] += marked > 0
    return pixels, known, images


def label_shares(checked: CheckedData) -> dict[int, float]:
    """Share of all pixels by label, including the ignored label."""
    total: Counter[int] = Counter()
    for _, target in checked.targets:
        total.update(target.labels or {})
    pixels = max(sum(total.values()), 1)
    return {label: total[label] / pixels for label in sorted(total)}


def ignored_label(checked: CheckedData) -> tuple[int, float]:
    """The ignored label, and its share of all pixels."""
    data = checked.data
    if data.reading.kind == "labels":
        return data.ignore_index, label_shares(checked).get(data.ignore_index, 0.0)
    counts = [channel for _, target in checked.targets for channel in target.masks or []]
    known, pixels = sum(known for _, known, _ in counts), sum(pixels for _, _, pixels in counts)
    return IGNORED, 1 - known / pixels if pixels else 0.0


def judge_classes(checked: CheckedData) -> Iterator[Problem]:
    """Problems of the labels of the whole data set."""
    binary = list(_black_and_white(checked))
    if binary:
        yield from binary
        return
    outside = list(_outside(checked))
    yield from outside
    if checked.data.classes is None and checked.labels and not outside:
        unclear = list(_void(checked)) or list(_gaps(checked))
        if unclear:
            yield from unclear
            return
    yield from _mostly_ignored(checked)
    names = class_names(checked) if checked.data.reading.kind in ("labels", "masks") else None
    if names is None:
        return
    yield from _mixed_white(checked, names)
    yield from _spread(checked, names)


def _mostly_ignored(checked: CheckedData) -> Iterator[Problem]:
    data = checked.data
    if data.reading.kind not in ("labels", "masks"):
        return
    label, share = ignored_label(checked)
    if share <= _MOSTLY:
        return
    message = f"label {label} is ignored, and it covers {share:.0%} of the pixels: nothing is learnt or scored there"
    if data.reading.kind == "labels" and not data.ignored_by_default:
        remedy = "if it is a class, ignore another label: --set data.ignore_index=LABEL"
    else:
        # The number of a class that no target shows.
        free = next(number for number in range(len(checked.labels) + 1) if number not in checked.labels)
        number = 1 if data.reading.kind == "masks" else free
        remedy = f"if it is a class, set its number: {_label_map_flag(checked, {label: number})}"
        if data.ignored_by_default:
            remedy += f"; if it means unknown: --set data.ignore_index={label}"
    yield checked.problem("mostly ignored", message, remedy, "warning")


def _label_map_flag(checked: CheckedData, numbers: Mapping[int, int]) -> str:
    """The flag that adds numbers to the label map; it repeats the present entries, because it replaces the map."""
    entries: dict[Any, Any] = {**(checked.data.options["label_map"] or {}), **numbers}
    text = ", ".join(f"{label}: {number}" for label, number in entries.items())
    return f"--set 'data.label_map={{{text}}}'"


def _void(checked: CheckedData) -> Iterator[Problem]:
    """Labels that seem to mean unknown: the highest number of the data type, or far above the other labels."""
    void = sorted(label for label in checked.labels if is_void(label, checked.labels))
    if not void:
        return
    shares = label_shares(checked)
    message = (
        f"labels {first_few(void)} cover {sum(shares[label] for label in void):.1%} of the pixels and are far above "
        "the others: they seem to mean that the class is unknown"
    )
    if len(void) == 1 and _may_ignore_another(checked):
        remedy = f"ignore it: --set data.ignore_index={void[0]}"
    else:
        remedy = f"ignore them: {_label_map_flag(checked, dict.fromkeys(void, checked.data.ignore_index))}"
    yield checked.problem("void label", message, remedy)


def _gaps(checked: CheckedData) -> Iterator[Problem]:
    labels = checked.labels
    renumbered = gaps(labels)
    if not renumbered:
        return
    message = f"the labels are {first_few(sorted(labels))}: {max(labels) + 1} classes, but only {len(labels)} occur"
    label, share = ignored_label(checked)
    with_ignored = gaps(labels | {label})
    flag = _label_map_flag(checked, renumbered)
    remedy = f"number them from 0: {flag}"
    if checked.data.ignored_by_default and share and with_ignored:
        message += f"; label {label}, which is ignored, covers {share:.0%}"
        flag_with_ignored = _label_map_flag(checked, with_ignored)
        remedy = f"number them from 0: {flag_with_ignored}"
        if share <= _MOSTLY:
            remedy = f"number them from 0: {flag}, or if {label} is a class too: {flag_with_ignored}"
    yield checked.problem("gaps in labels", message, remedy)


def _black_and_white(checked: CheckedData) -> Iterator[Problem]:
    counts = [labels for _, labels in checked.label_counts]
    occurring = {label for labels in counts for label in labels}
    if 255 not in occurring or not occurring <= {0, 1, 255}:
        return
    if 1 in occurring and (
        not checked.data.ignored_by_default or any(1 in labels and 255 in labels for labels in counts)
    ):
        return  # beside the class 1, 255 means unknown
    among = "other files hold 1 for the class" if 1 in occurring else "black would be the only class"
    unless = ", or if it means unknown: --set data.ignore_index=255" if 1 in occurring else ""
    for pair, labels in checked.label_counts:
        if 255 in labels:
            file = str(pair.sample.target)
            message = f"'{file}' holds 0 and 255: white counts as ignored, {among}"
            remedy = f"make white class 1: --set 'data.label_map={{255: 1}}'{unless}"
            yield Problem("0/255 mask", file, message, remedy, split=pair.split)


def _mixed_white(checked: CheckedData, names: Sequence[str]) -> Iterator[Problem]:
    reading = checked.data.reading
    for name, channel in zip(names, reading.order or range(len(names)), strict=False):
        if channel in reading.mask_values.mixed:
            message = f"some masks of class '{name}' hold 0 and 1, others 0 and 255: both are taken for the class"
            remedy = "if 255 means unknown: --set 'data.label_map={255: 255}'"
            yield checked.problem("mixed masks", message, remedy, "warning")


def _outside(checked: CheckedData) -> Iterator[Problem]:
    data = checked.data
    count = len(data.classes) if data.classes else None
    outside = [
        (pair, wrong) for pair, labels in checked.label_counts if (wrong := _wrong(labels, count, data.ignore_index))
    ]
    if not outside:
        return
    valid = f"the {count} classes 0..{count - 1}" if count else "the numbers from 0"
    remedy = _outside_remedy(checked, sorted({label for _, wrong in outside for label in wrong}), count)
    for pair, wrong in outside:
        message = f"'{pair.sample.target}' has labels {first_few(wrong)} outside {valid}"
        yield pair.problem("labels outside classes", pair.sample.target, message, remedy)


def _wrong(labels: dict[int, int], count: int | None, ignored: int) -> list[int]:
    return [label for label in labels if label != ignored and (label < 0 or (count is not None and label >= count))]


def _outside_remedy(checked: CheckedData, wrong: list[int], count: int | None) -> str:
    if count is not None and wrong == [count] and 0 not in checked.labels:
        counted_from_one = {label: label - 1 for label in range(1, count + 1)}
        return f"if labels are counted from 1: {_label_map_flag(checked, counted_from_one)}"
    more = "name more classes in classes.txt or by --set data.classes=[...]"
    if len(wrong) > _LISTED_IN_REMEDY:
        return f"if they are classes, {more}; else use the task that fits the maps"
    if len(wrong) == 1 and is_void(wrong[0], checked.labels) and _may_ignore_another(checked):
        return f"if it means unknown, ignore it: --set data.ignore_index={wrong[0]}"
    ignoring = _label_map_flag(checked, dict.fromkeys(wrong, checked.data.ignore_index))
    if any(label < 0 for label in wrong):
        return f"if they mean unknown, ignore them: {ignoring}"
    return f"ignore them: {ignoring}, or {more}"


def _may_ignore_another(checked: CheckedData) -> bool:
    """Whether another label can be ignored, because the label that is ignored by default does not occur."""
    return checked.data.ignored_by_default and checked.data.ignore_index not in label_shares(checked)


def _spread(checked: CheckedData, names: list[str]) -> Iterator[Problem]:
    data = checked.data
    counted = {split: class_pixels(part, len(names)) for split, part in checked.by_split.items() if part.pairs}
    if "train" not in counted:
        return
    pixels, known, images = counted["train"]
    learnt = [name for name, number in zip(names, pixels, strict=True) if number]
    if data.reading.kind == "labels" and len(learnt) < 2:
        only = f"'{learnt[0]}' alone" if learnt else "no class"
        yield checked.problem("one class", f"the training maps show {only}", "add maps of the classes to be found")
        return
    stratified = "--set data.stratify=true" if data.layout.split_by == "seed" else "move some images between the splits"
    for label, name in enumerate(names):
        if label == data.ignore_index:
            continue
        others = [split for split, counts in counted.items() if split != "train" and counts[0][label]]
        if not pixels[label] and others:
            message = f"class '{name}' is in {' and '.join(others)}, but in no training map"
            yield checked.problem("class not in train", message, f"it cannot be learnt: {stratified}, or ignore it")
        elif not pixels[label]:
            message, remedy = f"class '{name}' is in no map", "remove it from the class names, or add maps of it"
            yield checked.problem("absent class", message, remedy, "warning")
        elif "val" in counted and not counted["val"][0][label]:
            message = f"class '{name}' is in no validation map: its score is unknown"
            yield checked.problem("class not in val", message, stratified, "warning")
        if pixels[label] and pixels[label] < _RARE * known[label]:
            share = f"{pixels[label] / known[label]:.3%}"
            message = f"class '{name}' covers {share} of the training maps, in {images[label]} of them"
            remedy = "weigh the classes: --set class_weights=balanced, or use --set loss=dice"
            yield checked.problem("rare class", message, remedy, "warning")
