"""Regression metrics against values computed by hand and numpy."""

import numpy as np
import pytest
import torch

from densemble.metrics import RegressionMetrics


def test_by_hand() -> None:
    metric = RegressionMetrics()
    metric.update(torch.tensor([[[1.0, 3.0, 9.0, 5.0]]]), torch.tensor([[2.0, 3.0, 0.0, float("nan")]]))
    found = metric.compute()
    assert found == {
        "mae": pytest.approx(0.5),  # |1-2|, |3-3|; 0 and NaN are invalid
        "rmse": pytest.approx(0.5**0.5),
        "absrel": pytest.approx(0.25),
        "delta1": pytest.approx(0.5),  # 2/1 is over 1.25, 3/3 is not
    }


def test_every_pixel_of_the_set_weighs_the_same() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.uniform(0.5, 9, s), random.uniform(-1, 9, s)) for s in ((4, 5), (20, 30), (1, 1))]
    metric = RegressionMetrics()
    for prediction, target in pairs:
        metric.update(torch.from_numpy(prediction)[None], torch.from_numpy(target))
    p, t = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    p, t = p[t > 0], t[t > 0]
    found = metric.compute()
    assert found["mae"] == pytest.approx(np.abs(p - t).mean())
    assert found["rmse"] == pytest.approx(np.sqrt(((p - t) ** 2).mean()))
    assert found["absrel"] == pytest.approx((np.abs(p - t) / t).mean())
    assert found["delta1"] == pytest.approx((np.maximum(p / t, t / p) < 1.25).mean())


def test_negative_targets_count_where_they_are_valid() -> None:
    metric = RegressionMetrics(invalid_below=None)
    metric.update(torch.tensor([[[0.0, 2.0]]]), torch.tensor([[-1.0, 2.0]]))
    found = metric.compute()
    assert found["mae"] == 0.5 and found["absrel"] == 0 and found["delta1"] == 1


def test_nothing_valid_is_none_not_zero() -> None:
    metric = RegressionMetrics()
    metric.update(torch.ones(1, 2, 2), torch.zeros(2, 2))
    assert set(metric.compute().values()) == {None}
