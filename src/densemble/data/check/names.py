"""Reports files without a partner, names that occur twice, and splits that are too small."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from densemble.data.check.problems import Problem, Severity
from densemble.data.check.subject import Checkable
from densemble.data.layouts import Layout, Sample
from densemble.data.leave_out import ABSENT_IS_EMPTY
from densemble.storage.images import TARGET_SUFFIXES

_FEWEST = 2
_ALIKE = 0.8
_MOST_COMPARED = 1000


def name_pairs(layout: Layout) -> dict[str, list[tuple[str, Sample]]]:
    """(name, sample) by split. The name is the stem, with the prefix ``SPLIT/`` if another split has the same stem."""
    counts = Counter(sample.stem for samples in layout.splits.values() for sample in samples)
    return {
        split: [(sample.stem if counts[sample.stem] == 1 else f"{split}/{sample.stem}", sample) for sample in samples]
        for split, samples in layout.splits.items()
    }


def judge_names(data: Checkable, unpaired: Severity) -> Iterator[Problem]:
    """Problems that are visible without reading images; ``unpaired`` is the severity of files without a partner."""
    layout = data.layout
    yield from _unpaired(layout, unpaired)
    yield from _unused(layout)
    for used, other in layout.doubled:
        message = f"'{used}' and '{other}' have the same name; the first is used"
        yield Problem("doubled name", str(other), message, "rename or remove one of them", partner=str(used))
    for region, count in layout.undrawn.items():
        message = f"{count} regions of type '{region}' in '{layout.path}' are not drawn: their area is not marked"
        remedy = "if they are regions of a class, draw them as polygons or masks and export again"
        yield Problem("regions not drawn", str(layout.path), message, remedy, "warning")
    for split, samples in layout.splits.items():
        yield from _differing_in_case(split, samples)
    yield from _small_splits(data)


def _unpaired(layout: Layout, severity: Severity) -> Iterator[Problem]:
    remedy = "add its partner, or leave such files out: --set data.skip_unpaired=true"
    incomplete = {sample.image: sample for samples in layout.incomplete.values() for sample in samples}
    for file in layout.unpaired:
        if file in incomplete:
            message = f"'{file}' has no mask of the classes {', '.join(incomplete[file].absent)}"
            empty_or_remedy = f"if a missing mask means that the class does not occur: {ABSENT_IS_EMPTY}; else {remedy}"
            yield Problem("unpaired", str(file), message, empty_or_remedy, severity)
            continue
        message = f"'{file}' has no partner of the same stem" if file.exists() else f"'{file}' is listed but missing"
        others = {path.stem: path for path in layout.unpaired if path.parent != file.parent}
        near = difflib.get_close_matches(file.stem, others, n=1, cutoff=_ALIKE) if len(others) < _MOST_COMPARED else []
        hint = f"; '{others[near[0]].name}' in '{others[near[0]].parent.name}' has none either" if near else ""
        yield Problem("unpaired", str(file), message + hint, remedy, severity)


def _unused(layout: Layout) -> Iterator[Problem]:
    """One problem for all files of one folder and suffix."""
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file in layout.unused:
        groups[file.parent, file.suffix.lower()].append(file)
    for (folder, suffix), files in groups.items():
        described = f"files '*{suffix}'" if suffix else "files without suffix"
        message = f"{len(files)} {described} in '{folder}' are not used, such as '{files[0].name}'"
        if files[0].is_symlink() and not files[0].exists():
            remedy = "the link is broken: restore its destination, or remove it"
        elif suffix in TARGET_SUFFIXES:
            remedy = "add them to the list of a split, or move them out of the folder"
        else:
            remedy = "save images and maps as PNG, TIFF or NPY, and move other files out of the folder"
        yield Problem("unused files", str(files[0]), message, remedy, "warning")


def _differing_in_case(split: str, samples: tuple[Sample, ...]) -> Iterator[Problem]:
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.stem.casefold(), sample)
        if other is not sample:
            message = f"'{other.image}' and '{sample.image}' differ only in capital letters"
            remedy = "rename one: Windows and macOS take them for the same file"
            yield Problem("names differ in case", str(sample.image), message, remedy, "warning", split)


def _small_splits(data: Checkable) -> Iterator[Problem]:
    for split in ("train", "val"):
        count, folder = len(data.layout.splits.get(split, ())), str(data.path / split)
        if not count:
            remedy = "add some" if split == "train" else "add some, or remove the empty val folder: val is then drawn"
            yield Problem("empty split", folder, f"there are no {split} pairs", remedy, split=split)
        elif count < _FEWEST:
            message = f"there is only {count} {split} pair; its score means nothing"
            yield Problem("tiny split", folder, message, "add more pairs", "warning", split)
