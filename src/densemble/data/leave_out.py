"""Leaves out pairs by name, and keeps images whose missing masks mean that a class does not occur."""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from densemble.data.layouts import Layout, Sample
from densemble.data.layouts.folders import composed
from densemble.data.layouts.read_files import read_lines
from densemble.data.read_pairs import first_few
from densemble.errors import DataError
from densemble.input_files import expanded

ABSENT_IS_EMPTY = "--set data.absent_is_empty=true"
"""The flag that makes missing masks empty masks."""
_WILD = re.compile(r"[*?[]")


def with_incomplete(layout: Layout) -> Layout:
    """The layout with the images that lack the masks of some classes: these classes do not occur in them."""
    images = {sample.image for samples in layout.incomplete.values() for sample in samples}
    splits = {
        split: tuple(sorted((*samples, *layout.incomplete.get(split, ())), key=lambda sample: sample.stem))
        for split, samples in layout.splits.items()
    }
    unpaired = tuple(file for file in layout.unpaired if file not in images)
    return replace(layout, splits=splits, unpaired=unpaired, incomplete={})


def require_pairs(layout: Layout) -> None:
    """Checks that every image has exactly one target, and every target one image.

    Raises:
        DataError: a file has no partner, or two of them.
    """
    if layout.unpaired:
        raise DataError(
            f"{len(layout.unpaired)} files in '{layout.path}' have no partner of the same stem: "
            f"{first_few([_relative(file, layout.path) for file in layout.unpaired])}; add the missing "
            "image or map, or leave them out with --set data.skip_unpaired=true"
            + (f"; if a missing mask means that the class is absent: {ABSENT_IS_EMPTY}" if layout.incomplete else "")
        )
    if layout.doubled:
        first, second = layout.doubled[0]
        raise DataError(
            f"{len(layout.doubled)} files in '{layout.path}' have the same stem as another, such as "
            f"'{_relative(first, layout.path)}' and '{_relative(second, layout.path)}'; pairs are matched by stem: "
            "rename or remove one"
        )


def without(layout: Layout, leave_out: list[str] | str | Path | None, folder: Path) -> Layout:
    """The layout without the named pairs.

    Raises:
        DataError: the file of names does not exist, or a name matches nothing.
    """
    patterns = _patterns(leave_out, folder)
    if not patterns:
        return layout
    wild = {text: re.compile(fnmatch.translate(text)) for text in patterns if _WILD.search(text)}
    plain = frozenset(patterns) - wild.keys()
    used: set[str] = set()
    kept: dict[str, tuple[Sample, ...]] = {}
    for split, samples in layout.splits.items():
        matching = [_matching(plain, wild, split, sample) for sample in samples]
        used.update(*matching)
        kept[split] = tuple(sample for sample, matched in zip(samples, matching, strict=True) if not matched)
    useless = [pattern for pattern in patterns if pattern not in used]
    if useless:
        raise DataError(
            f"data.leave_out: no pair of '{folder}' is named {first_few(useless)}; pairs are named by their stem, or "
            "as train/STEM if two splits have the same stem"
        )
    return replace(layout, splits=kept)


def _matching(plain: frozenset[str], wild: Mapping[str, re.Pattern[str]], split: str, sample: Sample) -> set[str]:
    """The patterns that match a sample; ``plain`` names are looked up because there may be as many as samples."""
    names = (sample.stem, f"{split}/{sample.stem}")
    matching = {text for text, pattern in wild.items() if any(pattern.match(name) for name in names)}
    return matching | plain.intersection(names)


def _patterns(leave_out: list[str] | str | Path | None, folder: Path) -> list[str]:
    if leave_out is None or isinstance(leave_out, list):
        return [composed(name) for name in leave_out or []]
    for path in (expanded(leave_out), folder / leave_out):
        if path.exists() and not path.is_dir():
            return [composed(line) for line in read_lines(path)]
    raise DataError(
        f"data.leave_out: no file '{leave_out}' in the working folder or in '{folder}'; write a list, or a file with "
        "one name per line"
    )


def _relative(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
