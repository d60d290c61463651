"""Regression metrics against values computed by hand and numpy."""

import numpy as np
import pytest
import torch

from densemble.metrics import RegressionMetrics


def test_by_hand() -> None:
    metric = RegressionMetrics()
    metric.update(torch.tensor([[[1.0, 3.0, 9.0, 5.0]]]), torch.tensor([[2.0, 3.0, 0.0, float("nan")]]))
    result = metric.compute()
    assert result == {
        "mae": pytest.approx(0.5),  # |1-2|, |3-3|; 0 and NaN are invalid
        "rmse": pytest.approx(0.5**0.5),
        "absrel": pytest.approx(0.25),
        "delta1": pytest.approx(0.5),  # 2/1 is over 1.25, 3/3 is not
        "delta2": pytest.approx(0.5),
        "delta3": pytest.approx(0.5),  # 1.25^3 = 1.95
        "silog": pytest.approx(100 * np.log(2) / 2),  # half the distance of two log ratios, -log 2 and 0
    }


def test_every_pixel_of_the_set_weighs_the_same() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.uniform(0.5, 9, s), random.uniform(-1, 9, s)) for s in ((4, 5), (20, 30), (1, 1))]
    metric = RegressionMetrics()
    for prediction, target in pairs:
        metric.update(torch.from_numpy(prediction)[None], torch.from_numpy(target))
    p, t = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    p, t = p[t > 0], t[t > 0]
    result = metric.compute()
    assert result["mae"] == pytest.approx(np.abs(p - t).mean())
    assert result["rmse"] == pytest.approx(np.sqrt(((p - t) ** 2).mean()))
    assert result["absrel"] == pytest.approx((np.abs(p - t) / t).mean())
    ratio = np.where(p > 0, np.maximum(p / t, t / p), np.inf)
    for power in (1, 2, 3):
        assert result[f"delta{power}"] == pytest.approx((ratio < 1.25**power).mean())


def test_what_is_not_positive_has_no_logarithm() -> None:
    metric = RegressionMetrics()
    metric.update(torch.tensor([[[2.0, -1.0]]]), torch.tensor([[2.0, 1.0]]))
    result = metric.compute()
    assert result["silog"] is None and result["delta1"] == 0.5


def test_silog_equals_kittis_and_ignores_the_scale_of_an_image() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.uniform(0.5, 9, s), random.uniform(0.5, 9, s)) for s in ((4, 5), (20, 30))]
    metric = RegressionMetrics()
    for factor, (prediction, target) in zip((1.0, 7.0), pairs, strict=True):
        metric.update(torch.from_numpy(prediction)[None] * factor, torch.from_numpy(target))
    logs = [np.log(prediction) - np.log(target) for prediction, target in pairs]
    reference = np.mean([100 * np.sqrt((d**2).mean() - d.mean() ** 2) for d in logs])
    assert metric.compute()["silog"] == pytest.approx(reference)


def test_negative_targets_count_where_they_are_valid() -> None:
    metric = RegressionMetrics(invalid_below=None)
    metric.update(torch.tensor([[[0.0, 2.0]]]), torch.tensor([[-1.0, 2.0]]))
    result = metric.compute()
    assert result["mae"] == 0.5 and result["absrel"] == 0 and result["delta1"] == 1


def test_nothing_valid_is_none_not_zero() -> None:
    metric = RegressionMetrics()
    metric.update(torch.ones(1, 2, 2), torch.zeros(2, 2))
    assert set(metric.compute().values()) == {None}
