"""Pairs that are left out of a data set by name, and those whose absent masks are meant."""

import fnmatch
from dataclasses import replace
from pathlib import Path

from densemble.data.layouts import Layout, Sample
from densemble.data.layouts.folders import composed
from densemble.data.read_pairs import some
from densemble.errors import DataError

EMPTY = "--set data.absent_is_empty=true"
"""The flag that makes absent masks empty ones."""


def with_incomplete(found: Layout) -> Layout:
    """The layout with the images of which some classes have no mask: nothing of those is there."""
    images = {sample.image for samples in found.incomplete.values() for sample in samples}
    splits = {
        split: tuple(sorted((*samples, *found.incomplete.get(split, ())), key=lambda sample: sample.stem))
        for split, samples in found.splits.items()
    }
    unpaired = tuple(file for file in found.unpaired if file not in images)
    return replace(found, splits=splits, unpaired=unpaired, incomplete={})


def require_pairs(found: Layout) -> None:
    """Checks that every image has one map, and every map one image.

    Raises:
        DataError: some have no partner, or two of them.
    """
    if found.unpaired:
        raise DataError(
            f"{len(found.unpaired)} files in '{found.path}' have no partner of the same stem: "
            f"{some([_short(file, found.path) for file in found.unpaired])}; add the missing "
            "image or map, or leave them out with --set data.skip_unpaired=true"
            + (f"; where an absent mask means that nothing is there, say {EMPTY}" if found.incomplete else "")
        )
    if found.doubled:
        one, two = found.doubled[0]
        raise DataError(
            f"{len(found.doubled)} files in '{found.path}' have the same stem as another, as "
            f"'{_short(one, found.path)}' and '{_short(two, found.path)}'; pairs are matched by stem: rename or "
            "remove one"
        )


def without(found: Layout, leave_out: list[str] | str | Path | None, folder: Path) -> Layout:
    """The layout without the pairs that are named.

    Raises:
        DataError: the file of names is not there, or a name matches nothing.
    """
    patterns = _patterns(leave_out, folder)
    if not patterns:
        return found
    named = [(f"{split}/{s.stem}", s.stem) for split, samples in found.splits.items() for s in samples]
    useless = [p for p in patterns if not any(fnmatch.fnmatchcase(name, p) for names in named for name in names)]
    if useless:
        raise DataError(
            f"data.leave_out: no pair of '{folder}' is named {some(useless)}; pairs are named by their stem, or as "
            "train/STEM where two splits have the same"
        )

    def unwanted(split: str, sample: Sample) -> bool:
        return any(fnmatch.fnmatchcase(n, p) for p in patterns for n in (sample.stem, f"{split}/{sample.stem}"))

    kept = {
        name: tuple(sample for sample in samples if not unwanted(name, sample))
        for name, samples in found.splits.items()
    }
    return replace(found, splits=kept)


def _patterns(leave_out: list[str] | str | Path | None, folder: Path) -> list[str]:
    if leave_out is None or isinstance(leave_out, list):
        return [composed(name) for name in leave_out or []]
    for path in (Path(leave_out).expanduser(), folder / leave_out):
        if path.is_file():
            return [composed(line.strip()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    raise DataError(
        f"data.leave_out: no file '{leave_out}' in the working folder nor in '{folder}'; write a list, or one name per "
        "line into a file"
    )


def _short(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
