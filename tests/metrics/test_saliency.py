"""Saliency metrics against scipy, torchmetrics' ROC area and values computed by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from densemble.metrics import SaliencyMetrics
from densemble.metrics.saliency import auc_judd, correlation, divergence, scanpath, similarity

EIGHTH = 1 / 8


def random_maps() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(9, 13, dtype=torch.float64), torch.rand(9, 13, dtype=torch.float64)


def test_correlation_is_pearsons() -> None:
    a, b = random_maps()
    assert correlation(a, b) == pytest.approx(stats.pearsonr(a.flatten(), b.flatten()).statistic, abs=1e-12)
    assert correlation(a, 3 * a + 2) == pytest.approx(1)
    assert correlation(a, torch.ones_like(a)) == 0


def test_similarity_by_hand() -> None:
    p = torch.tensor([[1.0, 1.0], [2.0, 4.0]])  # 1/8 1/8 2/8 4/8
    q = torch.tensor([[4.0, 2.0], [1.0, 1.0]])  # 4/8 2/8 1/8 1/8
    assert similarity(p, q) == pytest.approx(4 * EIGHTH)
    assert similarity(p, 7 * p) == pytest.approx(1)


def test_divergence_is_scipys_relative_entropy_of_the_target() -> None:
    p, q = random_maps()
    assert divergence(p, q) == pytest.approx(stats.entropy(q.flatten(), p.flatten()), abs=1e-10)
    assert divergence(p, p) == pytest.approx(0, abs=1e-12)


def test_scanpath_is_the_mean_z_score_at_fixations() -> None:
    p, _ = random_maps()
    points = torch.zeros(9, 13, dtype=torch.bool)
    points[2, 3] = points[7, 11] = True
    z = stats.zscore(p.numpy(), axis=None)
    assert scanpath(p, points) == pytest.approx((z[2, 3] + z[7, 11]) / 2, abs=1e-12)
    assert scanpath(torch.ones(9, 13), points) == 0


def test_auc_is_the_roc_area_where_no_values_are_equal() -> None:
    """Mann-Whitney's U gives the exact area; Judd's takes only the fixated values as thresholds, so it lies within
    one step of a fixation."""
    p, _ = random_maps()
    points = torch.rand(9, 13) < 0.2
    fixated, others = p[points].numpy(), p[~points].numpy()
    exact = stats.mannwhitneyu(fixated, others).statistic / len(fixated) / len(others)
    assert auc_judd(p, points) == pytest.approx(exact, abs=0.5 / len(fixated) + 1e-9)


def test_auc_by_hand() -> None:
    p = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    points = torch.tensor([[True, False, True, False]])
    # thresholds 0.9: hits 1/2, false 0; 0.7: hits 1, false 1/2; then (1, 1)
    assert auc_judd(p, points) == pytest.approx(0.5 * (0.5 + 1) / 2 + 0.5 * 1)
    assert auc_judd(torch.ones(1, 4), points) == pytest.approx(0.5)
    perfect = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    assert auc_judd(perfect, points) == 1


def test_metrics_are_means_over_pictures_and_fixations_are_optional() -> None:
    metric = SaliencyMetrics()
    (a, b), (c, d) = random_maps(), random_maps()
    points = torch.rand(9, 13) < 0.2
    metric.update(a[None], b)
    metric.update(c[None], d, points)
    found = metric.compute()
    assert found["cc"] == pytest.approx((correlation(a, b) + correlation(c, d)) / 2)
    assert found["nss"] == pytest.approx(scanpath(c, points))
    assert set(found) == {"cc", "sim", "kld", "nss", "auc_judd"}


def test_empty_targets_say_nothing_and_nan_is_refused() -> None:
    metric = SaliencyMetrics()
    metric.update(torch.rand(1, 4, 4), torch.zeros(4, 4))
    assert metric.compute() == {}
    with pytest.raises(ValueError, match="NaN"):
        metric.update(torch.full((1, 4, 4), float("nan")), torch.rand(4, 4))


def test_the_scale_of_prediction_and_target_does_not_matter() -> None:
    a, b = random_maps()
    one, two = SaliencyMetrics(), SaliencyMetrics()
    points = torch.rand(9, 13) < 0.2
    one.update(a[None], b, points)
    two.update(a[None] * 0.01, b * 255, points)
    for key, value in one.compute().items():
        assert two.compute()[key] == pytest.approx(value, rel=1e-6), key
    assert np.isfinite(list(one.compute().values())).all()
