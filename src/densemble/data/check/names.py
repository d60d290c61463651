"""Files without a partner, names that occur twice, and splits that are too small."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from densemble.data.check.problems import Problem, Severity
from densemble.data.check.subject import Checkable
from densemble.data.layouts import Layout, Sample
from densemble.data.leave_out import EMPTY
from densemble.storage.images import TARGET_SUFFIXES

_FEWEST = 2
_ALIKE = 0.8


def name_pairs(layout: Layout) -> dict[str, list[tuple[str, Sample]]]:
    """Split -> (name, sample): the stem, after ``SPLIT/`` where another split has the same stem."""
    counts = Counter(sample.stem for samples in layout.splits.values() for sample in samples)
    return {
        split: [(sample.stem if counts[sample.stem] == 1 else f"{split}/{sample.stem}", sample) for sample in samples]
        for split, samples in layout.splits.items()
    }


def judge_names(data: Checkable, unpaired: Severity) -> Iterator[Problem]:
    """What is wrong before any file is read; ``unpaired`` says how bad files without a partner are."""
    yield from _unpaired(data.layout, unpaired)
    yield from _unused(data.layout)
    for used, other in data.layout.doubled:
        message = f"'{used}' and '{other}' claim the same name; the first is used"
        yield Problem("doubled name", str(other), message, "rename or remove one of them", partner=str(used))
    for region, count in data.layout.undrawn.items():
        message = (
            f"{count} regions of type '{region}' in '{data.layout.path}' are not drawn: what they cover is not marked"
        )
        remedy = "where they are regions of a class, draw them as polygons or masks and export again"
        yield Problem("regions not drawn", str(data.layout.path), message, remedy, "warning")
    for split, samples in data.layout.splits.items():
        yield from _differing_in_case(split, samples)
    yield from _small_splits(data)


def _unpaired(layout: Layout, severity: Severity) -> Iterator[Problem]:
    remedy = "add its partner, or leave such files out: --set data.skip_unpaired=true"
    incomplete = {sample.image: sample for samples in layout.incomplete.values() for sample in samples}
    by_folder: dict[Path, dict[str, Path]] = defaultdict(dict)
    for file in layout.unpaired:
        by_folder[file.parent][file.stem] = file
    for file in layout.unpaired:
        message = f"'{file}' has no partner of the same stem" if file.exists() else f"'{file}' is listed but not there"
        if file in incomplete:
            message = f"'{file}' has no mask of the classes {', '.join(incomplete[file].absent)}"
            told = f"where that means that nothing of them is there, say so: {EMPTY}; else {remedy}"
            yield Problem("unpaired", str(file), message, told, severity)
            continue
        others = {
            stem: path for folder, files in by_folder.items() if folder != file.parent for stem, path in files.items()
        }
        near = difflib.get_close_matches(file.stem, others, n=1, cutoff=_ALIKE) if len(others) < 1000 else []
        hint = f"; '{others[near[0]].name}' in '{others[near[0]].parent.name}' has none either" if near else ""
        yield Problem("unpaired", str(file), message + hint, remedy, severity)


def _unused(layout: Layout) -> Iterator[Problem]:
    """One problem for all files of one folder and suffix."""
    alike: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file in layout.unused:
        alike[file.parent, file.suffix.lower()].append(file)
    for (folder, suffix), files in alike.items():
        named = f"files '*{suffix}'" if suffix else "files without suffix"
        message = f"{len(files)} {named} in '{folder}' are not used, such as '{files[0].name}'"
        if files[0].is_symlink() and not files[0].exists():
            remedy = "the link leads nowhere: restore what it leads to, or remove it"
        elif suffix in TARGET_SUFFIXES:
            remedy = "name them in a list of a split, or move them out of the folder"
        else:
            remedy = "save images and maps as PNG, TIFF or NPY, and move other files out of the folder"
        yield Problem("unused files", str(files[0]), message, remedy, "warning")


def _differing_in_case(split: str, samples: tuple[Sample, ...]) -> Iterator[Problem]:
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.stem.casefold(), sample)
        if other is not sample:
            message = f"'{other.image}' and '{sample.image}' differ in nothing but capital letters"
            remedy = "rename one: Windows and macOS take them for the same file"
            yield Problem("names differ in case", str(sample.image), message, remedy, "warning", split)


def _small_splits(data: Checkable) -> Iterator[Problem]:
    for split in ("train", "val"):
        count, place = len(data.layout.splits.get(split, ())), str(data.path / split)
        if not count:
            remedy = "add some" if split == "train" else "add some, or have them drawn: remove the empty val folder"
            yield Problem("empty split", place, f"there are no {split} pairs", remedy, split=split)
        elif count < _FEWEST:
            message = f"there is only {count} {split} pair; its score says nothing"
            yield Problem("tiny split", place, message, "add more pairs", "warning", split)
