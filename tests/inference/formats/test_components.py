"""Components found in rows are those of the whole map; compared with scipy class by class."""

import numpy as np
import pytest
from known_predictions import blobs
from scipy import ndimage

from densemble.inference.formats.components import Components


@pytest.mark.parametrize("heights", [(24,), (1,) * 24, (7, 2, 15), (23, 1)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_rows_give_the_components_of_the_whole_map(seed: int, heights: tuple[int, ...]) -> None:
    labels = blobs(seed) - 1  # -1: no class
    probability = np.random.default_rng(seed).random(labels.shape)
    components = Components()
    ends = np.cumsum(heights)
    boxes = [slice(end - n, end) for n, end in zip(heights, ends, strict=True)]
    parts = [components.add(labels[rows], probability[rows]) for rows in boxes]
    table = components.table()
    ids = table.numbers[np.concatenate(parts)]
    np.testing.assert_array_equal(ids == 0, labels == -1)
    expected = [
        (label, within == index)
        for label in range(3)
        for within, count in [ndimage.label(labels == label)]
        for index in range(1, count + 1)
    ]
    assert len(table.pixels) == len(expected) + 1 and table.classes[0] == -1
    for label, region in expected:
        (number,) = np.unique(ids[region])
        assert (ids == number).sum() == region.sum() == table.pixels[number]
        assert table.classes[number] == label
        assert table.probability[number] == pytest.approx(probability[region].mean())


def test_a_map_without_classes_has_no_component() -> None:
    components = Components()
    assert not components.add(np.full((3, 4), -1), np.ones((3, 4))).any()
    assert components.table().pixels.tolist() == [0]


def test_two_arms_that_join_below_are_one_component() -> None:
    shape = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]])
    components = Components()
    for row in shape:
        components.add(row[None] - 1, np.ones((1, 3)))
    assert components.table().pixels.tolist() == [0, 7]
