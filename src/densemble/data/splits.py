"""Which samples are learned from, which choose, which test: seeded, grouped, stratified, or in folds."""

import random
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from densemble.data.layouts.layout import Sample
from densemble.data.read_pairs import Reading
from densemble.data_options import SplitOptions
from densemble.errors import DataError, UsageError

_FINEST_FRACTION = 20  # a stratified part is a multiple of 1/20 at most: each class needs that many samples

Unit = tuple[int, ...]  # places of samples that stay together
Units = list[Unit]


def make_splits(
    samples: Sequence[Sample], options: SplitOptions, stratum: Callable[[Sample], str] | None = None
) -> dict[str, tuple[Sample, ...]]:
    """Parts samples into train, val and, if asked for, test; each keeps the order of the samples.

    Args:
        samples: all of them.
        options: how; complete.
        stratum: names the stratum of a sample, such as its rarest class; needed to stratify.

    Raises:
        UsageError: fractions that leave nothing, a fold that does not exist, groups that match nothing or are
            too few, or no strata.
    """
    _check(options, stratum)
    units = _units(samples, options["group_by"])
    _check_number(len(units), len(samples), options)
    random.Random(options["seed"]).shuffle(units)
    if options["stratify"] and stratum is not None:
        strata = [stratum(sample) for sample in samples]
        parts = _part_stratified(units, strata, options)
    else:
        parts = _part(units, len(samples), options)
    return {name: tuple(samples[place] for place in sorted(places)) for name, places in parts.items()}


def _check(options: SplitOptions, stratum: Callable[[Sample], str] | None) -> None:
    test, folds, fold = options["test_fraction"], options["folds"], options["fold"]
    shares = (test, 0.0 if folds else options["val_fraction"])
    if sum(shares) >= 1:
        raise UsageError(
            f"val_fraction {options['val_fraction']} and test_fraction {test} leave nothing to train on; "
            "their sum must be below 1"
        )
    if folds is not None and fold >= folds:
        raise UsageError(f"there is no fold {fold} of {folds}; give one of 0..{folds - 1}")
    if options["stratify"] and stratum is None:
        raise UsageError("there are no strata to stratify by; this works with labels (segmentation, multilabel)")


def _units(samples: Sequence[Sample], group_by: str | None) -> Units:
    """One unit for each group, in the order in which they first appear; a sample without a group is its own."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(group_keys(samples, group_by)):
        groups.setdefault(("sample", str(place)) if key is None else ("group", key), []).append(place)
    return [tuple(places) for places in groups.values()]


def group_keys(samples: Sequence[Sample], group_by: str | None) -> list[str | None]:
    """Group of each sample by a regular expression, ``folder``, or the layout (``None``); see :class:`SplitOptions`.

    Raises:
        UsageError: an expression that is invalid or does not match every name.
    """
    if group_by is None:
        return [sample.group for sample in samples]
    if group_by == "folder":
        return [str(sample.image.parent) for sample in samples]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(f"group expression '{group_by}' is no regular expression: {error}") from error
    matches = [pattern.search(sample.stem) for sample in samples]
    strangers = [sample.stem for sample, match in zip(samples, matches, strict=True) if match is None]
    if strangers:
        raise UsageError(
            f"group expression '{group_by}' does not match {len(strangers)} of {len(samples)} names, such as "
            f"'{strangers[0]}'; give one that names the group of every sample"
        )
    return [(match[1] if pattern.groups and match[1] else match[0]) for match in matches if match]


def _check_number(units: int, samples: int, options: SplitOptions) -> None:
    wanted = (options["folds"] or 2) + (options["test_fraction"] > 0)
    grouped = units < samples
    if units < wanted and (grouped or options["folds"] or options["test_fraction"]):
        what = "groups" if grouped else "samples"
        raise UsageError(f"{units} {what} cannot be parted into {wanted} parts; ask for fewer, or give more {what}")


def _part(units: Units, total: int, options: SplitOptions) -> dict[str, list[int]]:
    test: Units = []
    if options["test_fraction"]:  # from the end: the part does not depend on the others
        test = _take(units[::-1], round(total * options["test_fraction"]), (options["folds"] or 2))
        units = _without(units, test)
    wanted = round(total * options["val_fraction"])
    val = units[options["fold"] :: options["folds"]] if options["folds"] else _take(units, wanted, 1)
    return _named(_without(units, val), val, test, options)


def _without(units: Units, taken: Units) -> Units:
    known = set(taken)
    return [unit for unit in units if unit not in known]


def _take(units: Units, wanted: int, left: int) -> Units:
    """Units from the start that hold the wanted number of samples or less, at least one, leaving some."""
    taken: Units = []
    held = 0
    for unit in units:
        if held + len(unit) <= wanted and len(taken) < len(units) - left:
            taken.append(unit)
            held += len(unit)
    return taken or (sorted(units, key=len)[:1] if len(units) > left else [])


def _part_stratified(units: Units, strata: Sequence[str], options: SplitOptions) -> dict[str, list[int]]:
    test: Units = []
    if options["test_fraction"]:
        parts, taken = _as_parts(options["test_fraction"])
        test = [unit for fold in _folds(units, strata, parts, options["seed"])[:taken] for unit in fold]
        units = _without(units, test)
    if options["folds"]:
        val = _folds(units, strata, options["folds"], options["seed"])[options["fold"]]
    else:
        parts, taken = _as_parts(options["val_fraction"] / (1 - options["test_fraction"]))
        val = [unit for fold in _folds(units, strata, parts, options["seed"])[:taken] for unit in fold]
    return _named(_without(units, val), val, test, options)


def _as_parts(fraction: float) -> tuple[int, int]:
    """How many parts to make and how many of them to take: 0.3 -> (10, 3)."""
    near = Fraction(fraction).limit_denominator(_FINEST_FRACTION)
    near = min(max(near, Fraction(1, _FINEST_FRACTION)), Fraction(_FINEST_FRACTION - 1, _FINEST_FRACTION))
    return near.denominator, near.numerator


def _folds(units: Units, strata: Sequence[str], parts: int, seed: int) -> list[Units]:
    from sklearn.model_selection import StratifiedGroupKFold

    places = [place for unit in units for place in unit]
    groups = [number for number, unit in enumerate(units) for _ in unit]
    splitter: Any = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    try:
        found = [test for _, test in splitter.split(places, [strata[place] for place in places], groups)]
    except ValueError as error:
        raise UsageError(f"cannot stratify into {parts} parts: {error}; ask for fewer parts or no strata") from error
    folds = [[units[number] for number in sorted({groups[place] for place in test})] for test in found]
    if not all(folds):
        raise UsageError(f"{len(units)} groups cannot be stratified into {parts} parts; ask for fewer, or no strata")
    return folds


def _named(train: Units, val: Units, test: Units, options: SplitOptions) -> dict[str, list[int]]:
    parts = {"train": train, "val": val, "test": test}
    if not options["test_fraction"]:
        del parts["test"]
    return {name: [place for unit in units for place in unit] for name, units in parts.items()}


def stratum_of(reading: Reading, sample: Sample) -> str:
    """The rarest thing that can be told cheaply of a map: its smallest class, or the size of its mean."""
    try:
        target = reading.target(sample)
    except DataError:
        return "unreadable"  # whoever reads it for training says so; it may be left out before
    if reading.kind in ("labels", "masks"):
        labels = target if target.ndim == 2 else np.where(target == 1, np.arange(len(target))[:, None, None] + 1, 0)
        values, counts = np.unique(labels[labels != reading.ignore_index], return_counts=True)
        return str(values[counts.argmin()]) if values.size else "none"
    mean = float(np.nanmean(target)) if np.isfinite(target).any() else 0.0
    return str(int(np.log2(mean))) if mean > 0 else "none"
