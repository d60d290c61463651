"""Splits are reproducible, complete and disjoint; groups stay together, strata are even, folds cover all pairs once."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densemble.config import make_data_options
from densemble.data.layouts import Sample
from densemble.data.splits import make_splits
from densemble.data_options import DataOptions, SplitOptions
from densemble.errors import UsageError

Splits = dict[str, tuple[Sample, ...]]


def make(names: Sequence[str], groups: Sequence[str | None] | None = None) -> list[Sample]:
    groups = groups or [None] * len(names)
    return [Sample(Path("i") / f"{n}.jpg", Path("t") / f"{n}.png", group=g) for n, g in zip(names, groups, strict=True)]


def options(**chosen: Unpack[SplitOptions]) -> SplitOptions:
    return {**make_data_options({}), **chosen}


def numbered(count: int, per_group: int | None = None) -> list[Sample]:
    groups = [None if per_group is None else f"g{place // per_group}" for place in range(count)]
    return make([f"{place:03d}" for place in range(count)], groups)


def assert_parted(splits: Splits, samples: Sequence[Sample]) -> None:
    together = [sample for part in splits.values() for sample in part]
    assert len(together) == len(samples) and set(together) == set(samples)
    for part in splits.values():
        assert list(part) == sorted(part, key=samples.index)


@given(count=st.integers(0, 60), fraction=st.floats(0.01, 0.9), seed=st.integers(0, 5))
def test_the_plain_split_is_the_first_of_a_seeded_shuffle(count: int, fraction: float, seed: int) -> None:
    samples = numbered(count)
    order = list(samples)
    random.Random(seed).shuffle(order)
    held_out = min(max(1, round(count * fraction)), count - 1) if count > 1 else 0
    splits = make_splits(samples, options(val_fraction=fraction, seed=seed))
    assert set(splits["val"]) == set(order[:held_out])
    assert_parted(splits, samples)


def test_the_plain_split_does_not_change() -> None:
    assert [sample.stem for sample in make_splits(numbered(10), options())["val"]] == ["007", "008"]


@given(
    sizes=st.lists(st.integers(1, 7), min_size=3, max_size=12),
    val=st.floats(0.05, 0.4),
    test=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 3),
)
def test_groups_stay_whole(sizes: list[int], val: float, test: float, seed: int) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    samples = make([f"{place}" for place in range(len(groups))], groups)
    splits = make_splits(samples, options(val_fraction=val, test_fraction=test, seed=seed))
    assert_parted(splits, samples)
    assert all(splits.values()) and len(splits) == (3 if test else 2)
    of_group = [{sample.group for sample in part} for part in splits.values()]
    assert sum(map(len, of_group)) == len(sizes)


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [(r"^(p\d)_", {"p1", "p2", "p3"}), (r"p\d", {"p1", "p2", "p3"}), (r"(?:x|_(day|night))", {"day", "night"})],
)
def test_groups_by_expression(group_by: str, groups: set[str]) -> None:
    samples = make([f"p{patient}_{time}_{n}" for patient in (1, 2, 3) for time in ("day", "night") for n in range(3)])
    splits = make_splits(samples, options(val_fraction=0.3, group_by=group_by))
    for group in groups:
        assert sum(any(group in sample.stem for sample in part) for part in splits.values()) == 1


def test_groups_by_folder() -> None:
    samples = [Sample(Path(f"f{n % 4}/{n}.jpg"), Path(f"t/{n}.png")) for n in range(20)]
    splits = make_splits(samples, options(group_by="folder"))
    folders = [{sample.image.parent for sample in part} for part in splits.values()]
    assert [len(found) for found in folders] == [3, 1] and not folders[0] & folders[1]


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("per_group", [None, 3])
@pytest.mark.parametrize("test_fraction", [0.0, 0.2])
def test_every_sample_is_val_in_exactly_one_fold(stratify: bool, per_group: int | None, test_fraction: float) -> None:
    samples = numbered(60, per_group)
    chosen = [options(test_fraction=test_fraction, stratify=stratify, folds=4, fold=fold) for fold in range(4)]
    parted = [make_splits(samples, option, lambda sample: str(int(sample.stem) % 2)) for option in chosen]
    tests = {splits.get("test", ()) for splits in parted}
    assert len(tests) == 1
    (test,) = tests
    assert len(test) == round(60 * test_fraction)
    times = Counter(sample for splits in parted for sample in splits["val"])
    assert set(times) == set(samples) - set(test) and set(times.values()) == {1}
    for splits in parted:
        assert_parted(splits, samples)


def test_the_test_part_depends_only_on_its_fraction_and_the_seed() -> None:
    samples = numbered(40)
    chosen = [options(val_fraction=val, test_fraction=0.2, folds=folds) for val in (0.1, 0.5) for folds in (None, 5)]
    assert len({make_splits(samples, option)["test"] for option in chosen}) == 1


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.3, 0.0), (0.2, 0.2)])
def test_strata_are_even(val: float, test: float) -> None:
    samples = numbered(100)
    rare = {sample for sample in samples if int(sample.stem) < 20}
    chosen = options(val_fraction=val, test_fraction=test, stratify=True, seed=3)
    splits = make_splits(samples, chosen, lambda sample: "rare" if sample in rare else "common")
    assert_parted(splits, samples)
    assert len(splits["val"]) == pytest.approx(100 * val, abs=2)
    for part in splits.values():
        assert len(set(part) & rare) / len(part) == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (options(val_fraction=0.6, test_fraction=0.4), "leave nothing to train on"),
        (options(folds=3, fold=3), r"no fold 3 of 3.*0\.\.2"),
        (options(folds=30), "20 samples cannot be split into 30"),
        (options(group_by="video"), "does not match 20 of 20 names, such as '000'"),
        (options(group_by="^01"), "does not match 10 of 20"),
        (options(group_by="("), "no regular expression"),
        (options(group_by="^0"), "1 groups cannot be split into 2"),
        (options(group_by=r"^0\d", test_fraction=0.2), "2 groups cannot be split into 3"),
        (options(stratify=True), "no strata"),
    ],
)
def test_impossible_splits_are_refused(chosen: SplitOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_splits(numbered(20), chosen)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"val_fraction": -0.1}, "val_fraction.*greater than 0"),
        ({"test_fraction": -0.1}, "test_fraction.*greater than or equal to 0"),
        ({"folds": 1}, "folds.*greater than or equal to 2"),
        ({"folds": 3, "fold": -1}, "fold'.*greater than or equal to 0"),
    ],
)
def test_invalid_options_are_refused(chosen: SplitOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_data_options(cast(DataOptions, chosen))


def test_strata_of_one_sample_each() -> None:
    with pytest.raises(UsageError, match="cannot stratify"):
        make_splits(numbered(20), options(stratify=True), lambda sample: sample.stem)
