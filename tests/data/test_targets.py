"""Targets are resized by their kind, and points are drawn as maps."""

import math

import numpy as np
import pytest
import torch

from densemble.data.targets import draw_points, resize_target

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("kind", ["labels", "masks", "values"])
def test_values_that_cannot_be_averaged_take_the_nearest_centre(kind: str) -> None:
    values = torch.from_numpy(RANDOM.integers(0, 200, (7, 9)))
    values = values.float() if kind == "values" else values
    resized = resize_target(values, (4, 20), kind)  # type: ignore[arg-type]
    rows = [math.floor((i + 0.5) * 7 / 4) for i in range(4)]
    columns = [math.floor((i + 0.5) * 9 / 20) for i in range(20)]
    assert torch.equal(resized, values[rows][:, columns])
    assert resized.dtype == values.dtype


def test_labels_of_sixteen_bits_stay_exact() -> None:
    labels = torch.tensor([[65535, 40001], [3, 4]], dtype=torch.uint16)
    assert resize_target(labels, (4, 4), "labels").int().unique().tolist() == [3, 4, 40001, 65535]


def test_undefined_values_do_not_spread() -> None:
    values = torch.ones(8, 8)
    values[0, 0] = math.nan
    assert int(resize_target(values, (16, 16), "values").isnan().sum()) == 4


@pytest.mark.parametrize("size", [(10, 15), (80, 120), (13, 7)])
def test_a_density_keeps_its_sum_in_every_channel(size: tuple[int, int]) -> None:
    density = torch.from_numpy(RANDOM.random((3, 40, 60)).astype(np.float32))
    resized = resize_target(density, size, "density")
    torch.testing.assert_close(resized.sum((1, 2)), density.sum((1, 2)))
    assert resized.shape == (3, *size) and resize_target(torch.zeros(4, 4), (2, 2), "density").sum() == 0


def test_heat_is_a_mean_over_areas() -> None:
    heat = torch.from_numpy(RANDOM.random((40, 60)).astype(np.float32))
    flat = torch.full((40, 60), 0.25)
    torch.testing.assert_close(resize_target(flat, (7, 9), "heat"), torch.full((7, 9), 0.25))
    assert resize_target(heat, (20, 30), "heat").mean() == pytest.approx(float(heat.mean()), abs=1e-2)
    assert resize_target(heat, (40, 60), "heat") is heat


def test_a_point_of_a_density_counts_one_wherever_it_lies() -> None:
    points = np.array([[10.2, 8.7], [0.0, 0.0], [31.4, 23.4], [-0.5, 5.0]])
    maps = draw_points(points, np.array([0, 1, 1, 0]), 2, (24, 32), 1.5, density=True)
    assert maps.shape == (2, 24, 32) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum((1, 2)), [2, 2], rtol=1e-5)


def test_points_outside_are_ignored() -> None:
    points = np.array([[31.5, 5], [5, 23.5], [-0.6, 5], [400, 400]])
    assert not draw_points(points, np.zeros(4, int), 1, (24, 32), 2, density=True).any()


def test_a_keypoint_is_a_gaussian_of_peak_one() -> None:
    maps = draw_points(np.array([[10.0, 8.0]]), np.array([0]), 1, (24, 32), 2.0, density=False)
    assert np.unravel_index(maps[0].argmax(), (24, 32)) == (8, 10) and maps.max() == 1
    assert maps[0, 8, 12] == pytest.approx(math.exp(-0.5)) and maps[0, 11, 10] == pytest.approx(math.exp(-9 / 8))


def test_overlapping_keypoints_take_the_maximum() -> None:
    apart = [draw_points(np.array([[x, 8.0]]), np.array([0]), 1, (24, 32), 3, density=False) for x in (8.0, 12.0)]
    both = draw_points(np.array([[8.0, 8], [12, 8]]), np.array([0, 0]), 1, (24, 32), 3, density=False)
    np.testing.assert_array_equal(both, np.maximum(*apart))
