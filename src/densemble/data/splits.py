"""Splits samples into train, val and test: seeded, grouped, stratified, or in folds."""

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

_FINEST_FRACTION = 20  # a stratified part has a fraction n/20 or coarser: each class needs up to 20 samples

Unit = tuple[int, ...]  # indices of samples that stay together
Units = list[Unit]


def make_splits(
    samples: Sequence[Sample], options: SplitOptions, stratum: Callable[[Sample], str] | None = None
) -> dict[str, tuple[Sample, ...]]:
    """Splits samples into train, val and, if requested, test; each part keeps the order of the samples.

    Args:
        samples: all samples.
        options: all split options.
        stratum: returns the stratum of a sample, such as its rarest class; needed to stratify.

    Raises:
        UsageError: the fractions leave no training samples, the fold does not exist, the groups match nothing or are
            too few, or there are no strata.
    """
    _check(options, stratum)
    units = _units(samples, options["group_by"])
    _check_number(len(units), len(samples), options)
    random.Random(options["seed"]).shuffle(units)
    strata = [stratum(sample) for sample in samples] if options["stratify"] and stratum is not None else None
    parts = _part(units, len(samples), strata, options)
    return {name: tuple(samples[index] for index in sorted(indices)) for name, indices in parts.items()}


def _check(options: SplitOptions, stratum: Callable[[Sample], str] | None) -> None:
    test, folds, fold = options["test_fraction"], options["folds"], options["fold"]
    shares = (test, 0.0 if folds else options["val_fraction"])
    if sum(shares) >= 1:
        raise UsageError(
            f"val_fraction {options['val_fraction']} and test_fraction {test} leave nothing to train on; "
            "their sum must be below 1"
        )
    if folds is not None and fold >= folds:
        raise UsageError(f"there is no fold {fold} of {folds}; use one of 0..{folds - 1}")
    if options["stratify"] and stratum is None:
        raise UsageError("there are no strata; stratify works only with labels (segmentation, multilabel)")


def _units(samples: Sequence[Sample], group_by: str | None) -> Units:
    """One unit per group, in the order of their first samples; a sample without a group is a unit by itself."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(group_keys(samples, group_by)):
        groups.setdefault(("sample", str(index)) if key is None else ("group", key), []).append(index)
    return [tuple(indices) for indices in groups.values()]


def group_keys(samples: Sequence[Sample], group_by: str | None) -> list[str | None]:
    """Group of each sample: by regular expression, by ``folder``, or (``None``) by layout; see :class:`SplitOptions`.

    Raises:
        UsageError: the expression is invalid or does not match every name.
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
    unmatched = [sample.stem for sample, match in zip(samples, matches, strict=True) if match is None]
    if unmatched:
        raise UsageError(
            f"group expression '{group_by}' does not match {len(unmatched)} of {len(samples)} names, such as "
            f"'{unmatched[0]}'; use one that matches the group in every name"
        )
    return [(match[1] if pattern.groups and match[1] else match[0]) for match in matches if match]


def _check_number(units: int, samples: int, options: SplitOptions) -> None:
    parts = (options["folds"] or 2) + (options["test_fraction"] > 0)
    grouped = units < samples
    if units < parts and (grouped or options["folds"] or options["test_fraction"]):
        noun = "groups" if grouped else "samples"
        raise UsageError(f"{units} {noun} cannot be split into {parts} parts; use fewer parts, or add {noun}")


def _part(units: Units, count: int, strata: Sequence[str] | None, options: SplitOptions) -> dict[str, list[int]]:
    """Indices of the samples of each part; ``count`` is the number of all samples, ``strata`` their strata."""
    test_fraction, val_fraction, folds = options["test_fraction"], options["val_fraction"], options["folds"]
    seed = options["seed"]
    test: Units = []
    if test_fraction and strata is not None:
        test = _stratified_share(units, strata, test_fraction, seed)
    elif test_fraction:  # from the end, so that it does not depend on the other parts
        test = _take(units[::-1], round(count * test_fraction), folds or 2)
    units = _without(units, test)
    if strata is None:
        val = units[options["fold"] :: folds] if folds else _take(units, round(count * val_fraction), 1)
    elif folds:
        val = _folds(units, strata, folds, seed)[options["fold"]]
    else:
        val = _stratified_share(units, strata, val_fraction / (1 - test_fraction), seed)
    parts = {"train": _without(units, val), "val": val, **({"test": test} if test_fraction else {})}
    return {name: [index for unit in part for index in unit] for name, part in parts.items()}


def _without(units: Units, taken: Units) -> Units:
    excluded = set(taken)
    return [unit for unit in units if unit not in excluded]


def _take(units: Units, most_samples: int, least_left: int) -> Units:
    """The first units that fit into ``most_samples`` samples, at least one; leaves ``least_left`` units."""
    taken: Units = []
    count = 0
    for unit in units:
        if count + len(unit) <= most_samples and len(taken) < len(units) - least_left:
            taken.append(unit)
            count += len(unit)
    return taken or (sorted(units, key=len)[:1] if len(units) > least_left else [])


def _stratified_share(units: Units, strata: Sequence[str], fraction: float, seed: int) -> Units:
    """Units with about this fraction of each stratum: for 0.3, three of ten folds."""
    near = Fraction(fraction).limit_denominator(_FINEST_FRACTION)
    near = min(max(near, Fraction(1, _FINEST_FRACTION)), Fraction(_FINEST_FRACTION - 1, _FINEST_FRACTION))
    return [unit for fold in _folds(units, strata, near.denominator, seed)[: near.numerator] for unit in fold]


def _folds(units: Units, strata: Sequence[str], parts: int, seed: int) -> list[Units]:
    from sklearn.model_selection import StratifiedGroupKFold

    indices = [index for unit in units for index in unit]
    groups = [number for number, unit in enumerate(units) for _ in unit]
    splitter: Any = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    try:
        tests = [test for _, test in splitter.split(indices, [strata[index] for index in indices], groups)]
    except ValueError as error:
        raise UsageError(f"cannot stratify into {parts} parts: {error}; use fewer parts, or no strata") from error
    folds = [[units[number] for number in sorted({groups[position] for position in test})] for test in tests]
    if not all(folds):
        raise UsageError(f"{len(units)} groups cannot be stratified into {parts} parts; use fewer, or no strata")
    return folds


def stratum_of(reading: Reading, sample: Sample) -> str:
    """Stratum of a sample: the class with the fewest pixels in its target, or the order of magnitude of its mean."""
    try:
        target = reading.target(sample)
    except DataError:
        return "unreadable"  # reported when it is read for training, unless it is left out
    if reading.kind in ("labels", "masks"):
        labels = target if target.ndim == 2 else np.where(target == 1, np.arange(len(target))[:, None, None] + 1, 0)
        values, counts = np.unique(labels[labels != reading.ignore_index], return_counts=True)
        return str(values[counts.argmin()]) if values.size else "none"
    mean = float(np.nanmean(target)) if np.isfinite(target).any() else 0.0
    return str(int(np.log2(mean))) if mean > 0 else "none"
