"""Pixels and ranges that maps are drawn with."""

import numpy as np
import pytest

from densemble.inference.drawing import as_rgb, value_range


@pytest.mark.parametrize(("channels", "taken"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_pixels_are_the_first_three_channels_or_grey(channels: int, taken: list[int]) -> None:
    image = np.linspace(0, 1, 4 * 6 * channels, dtype=np.float32).reshape(4, 6, channels)
    pixels = as_rgb(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels / 255, image[..., taken], atol=0.5 / 255 + 1e-6)


def test_pixels_outside_the_range_are_cut() -> None:
    assert as_rgb(np.array([[[-0.5, 1.5, 1.0]]])).tolist() == [[[0, 255, 255]]]


def test_values_are_drawn_from_their_1st_to_their_99th_percentile() -> None:
    assert value_range(np.arange(101.0)) == (1.0, 99.0)
    assert value_range(np.zeros(0)) == (0.0, 1.0)
