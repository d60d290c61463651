"""Folds are contiguous, keep groups together, and measure every image once."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from densemble.selection.candidate_maps import sampled_pixels
from densemble.selection.folds import BLOCKS, alternating_halves, folds_of, groups_of, parts_of


@pytest.mark.parametrize("count", [2, 3, 7, 10, 101])
@pytest.mark.parametrize("folds", [2, 5])
def test_every_image_is_measured_once_and_blocks_are_contiguous(count: int, folds: int) -> None:
    images = [3 * number + 1 for number in range(count)]
    found = folds_of(images, folds)
    assert len(found) == min(folds, count)
    assert sorted(image for _, unseen in found for image in unseen) == images
    for seen, unseen in found:
        assert sorted(seen + unseen) == images and not set(seen) & set(unseen)
        assert all(later - earlier == 3 for earlier, later in pairwise(unseen))
    sizes = [len(unseen) for _, unseen in found]
    assert max(sizes) - min(sizes) <= 1


def test_groups_stay_whole() -> None:
    groups = ["a", "b", "a", "c", "b", "d", None, "c"]
    for _, unseen in folds_of(range(8), 3, groups):
        for image in unseen:
            if groups[image] is not None:
                assert {other for other in range(8) if groups[other] == groups[image]} <= set(unseen)
    assert len(folds_of(range(8), 99, groups)) == 5


def test_a_single_group_is_divided_and_a_single_image_is_not() -> None:
    assert folds_of(range(4), 2, ["film"] * 4) == [([2, 3], [0, 1]), ([0, 1], [2, 3])]
    assert folds_of([5], 2) == [] and folds_of([], 2) == [] and parts_of([], 3) == []


@pytest.mark.parametrize("count", [2, 5, 8, 20, 33])
def test_halves_alternate_in_blocks(count: int) -> None:
    first, second = alternating_halves(range(count))
    assert sorted(first + second) == list(range(count)) and 0 <= len(first) - len(second) <= -(-count // BLOCKS)
    assert first and second
    if count >= 2 * BLOCKS:
        blocks = parts_of(range(count), BLOCKS)
        halves = [sorted(image for block in blocks[start::2] for image in block) for start in (0, 1)]
        assert sorted([first, second]) == sorted(halves)


@pytest.mark.parametrize(
    ("groups", "found"),
    [(["a", "b", None], True), (["a", "a", "a"], False), (["a", None, None], False), ([None, None, None], False)],
)
def test_a_single_group_counts_as_no_group(groups: list[str | None], found: bool) -> None:
    data: Any = SimpleNamespace(
        layout=SimpleNamespace(split_by="folders"),
        options={"group_by": None},
        val=[SimpleNamespace(group=group) for group in groups],
    )
    assert groups_of(data) == (groups if found else None)


@pytest.mark.parametrize(
    ("channels", "images", "pixels"),
    [(3, 100, 4096), (20, 1000, 33_554_432 // 20_000), (150, 1000, 256), (1, 0, 4096)],
)
def test_fewer_pixels_are_sampled_from_many_large_maps(channels: int, images: int, pixels: int) -> None:
    assert sampled_pixels(channels, images) == pixels
