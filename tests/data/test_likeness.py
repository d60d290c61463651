"""Copies are detected after every supported change, and different images are not reported."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from data.good_sets import photo

from densemble.data.check.likeness import TURNS, find_alike, thumbnail
from densemble.data.check.patterns import are_smoothed, gaps, look_like_labels

Array = np.ndarray[Any, Any]
ORIGINALS = [thumbnail(photo(number, (96, 128))) for number in range(20)]


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_copy_is_detected_with_its_turn(turn: str) -> None:
    mirrored, quarters = TURNS[turn]
    # The transform makes the right image look like the left one, so it is applied to the left one.
    left = np.rot90(photo(7, (96, 96))[:, ::-1] if mirrored else photo(7, (96, 96)), quarters)
    likenesses = find_alike([thumbnail(left)], [*ORIGINALS, thumbnail(photo(7, (96, 96)))])
    assert [(pair.left, pair.right, pair.grade, pair.turn) for pair in likenesses] == [(0, 20, "copy", turn)]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: (x * 0.6 + 60).astype(np.uint8),
        lambda x: x[::2, ::2],
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x.astype(np.float32) / 255,
        lambda x: (x // 16) * 16,
    ],
    ids=["brightness", "half", "16 bits", "float", "posterized"],
)
def test_a_changed_copy_is_detected(change: Callable[[Array], Array]) -> None:
    likenesses = find_alike([thumbnail(change(photo(7, (96, 128))))], ORIGINALS)
    assert [(pair.right, pair.grade) for pair in likenesses] == [(7, "copy")]


def test_different_images_are_not_alike() -> None:
    others = [thumbnail(photo(number, (96, 128))) for number in range(100, 120)]
    assert find_alike(ORIGINALS, others) == []
    assert find_alike(ORIGINALS, []) == []


def test_equal_brightness_with_different_detail_is_no_copy() -> None:
    rows = np.linspace(0, 200, 96)[:, None, None]
    noise = [np.random.default_rng(seed).integers(0, 50, (96, 128, 1)).repeat(3, 2) for seed in (0, 1)]
    left, right = (thumbnail((rows + one).astype(np.uint8)) for one in noise)
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.97
    assert find_alike([left], [right]) == []


def test_constant_images_match_nothing() -> None:
    flat = np.full((32, 32), 90, np.uint8)
    assert find_alike([flat], [flat, ORIGINALS[0]]) == []


def test_labels_and_heat_are_distinguished() -> None:
    rows, columns = np.mgrid[:48, :64]
    blob = np.exp(-((rows - 20) ** 2 + (columns - 30) ** 2) / 200)
    blocks = np.array([[0, 5, 1], [11, 2, 7]]).repeat(24, 0).repeat(20, 1)
    assert look_like_labels(blocks.astype(float))
    assert not look_like_labels(np.floor(blob * 40))
    assert not look_like_labels(blob * 255)
    assert not look_like_labels((blob > 0.5).astype(float))


def test_smoothed_and_sharp_borders_are_distinguished() -> None:
    blocks = np.random.default_rng(0).integers(0, 12, (8, 8)).repeat(8, 0).repeat(8, 1) * 20
    smooth = (blocks[1:, 1:] + blocks[:-1, 1:] + blocks[1:, :-1] + blocks[:-1, :-1]) // 4
    assert not are_smoothed(blocks)
    assert are_smoothed(smooth)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({0, 1, 2}, {}),
        ({0, 2}, {}),
        ({0, 255}, {255: 1}),
        ({0, 128, 255}, {128: 1, 255: 2}),
        ({7, 19}, {7: 0, 19: 1}),
        (set(), {}),
    ],
)
def test_gaps(labels: set[int], expected: dict[int, int]) -> None:
    assert gaps(labels) == expected
