"""Metrics of points against values computed by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from densemble.metrics import DensityMetrics, KeypointMetrics


def blob(row: float, column: float, height: int = 60, width: int = 80) -> Tensor:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8.0)


def test_a_peak_within_5_percent_of_the_diagonal_is_correct() -> None:
    metric = KeypointMetrics()  # the diagonal is 100, so the reach is 5 pixels
    prediction = torch.stack([blob(20, 30), blob(23, 34), blob(26, 38)])
    metric.update(prediction, blob(20, 30).expand(3, -1, -1))
    result = metric.compute()
    assert result["pck"] == pytest.approx(2 / 3)
    assert result["distance"] == pytest.approx((0 + 5 + 10) / 3)


def test_a_channel_without_a_point_is_left_out_but_for_the_squared_error() -> None:
    metric = KeypointMetrics()
    target = torch.stack([blob(20, 30), torch.zeros(60, 80)])
    prediction = torch.stack([blob(20, 30), torch.full((60, 80), 0.5)])
    metric.update(prediction, target)
    assert metric.compute() == {"pck": 1.0, "distance": 0.0, "mse": pytest.approx(0.25 / 2)}


def test_the_nearest_of_several_points_counts_and_a_point_may_lie_between_pixels() -> None:
    target = torch.maximum(blob(10.4, 10.3), 0.9 * blob(50, 70))
    metric = KeypointMetrics()
    metric.update(blob(50, 69)[None], target[None])
    metric.update(blob(10, 10)[None], target[None])
    assert metric.compute()["distance"] == pytest.approx((1 + 0) / 2)


def test_no_point_at_all_is_none() -> None:
    assert set(KeypointMetrics().compute().values()) == {None}
    assert set(DensityMetrics().compute().values()) == {None}


def test_counts_are_sums_of_densities() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.random((2, *size)), random.random((2, *size))) for size in ((4, 5), (9, 7), (3, 3))]
    metric = DensityMetrics()
    for p, t in pairs:
        metric.update(torch.from_numpy(p), torch.from_numpy(t))
    errors = np.array([p[k].sum() - t[k].sum() for p, t in pairs for k in range(2)])
    result = metric.compute()
    assert result["count_mae"] == pytest.approx(np.abs(errors).mean())
    assert result["count_rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert result["mae"] == pytest.approx(np.concatenate([np.abs(p - t).ravel() for p, t in pairs]).mean())
