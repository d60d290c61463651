"""Saliency metrics against a transcription of the MIT benchmark's code, scipy and values computed by hand."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from densemble.metrics import SaliencyMetrics
from densemble.metrics.saliency import auc_judd, correlations, divergences, scanpaths, similarities


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(correlations(a.flatten()[None], b.flatten()))


def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(similarities(a.flatten()[None], b.flatten()))


def divergence(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(divergences(a.flatten()[None], b.flatten()))


def scanpath(a: torch.Tensor, points: torch.Tensor) -> float:
    return float(scanpaths(a.flatten()[None], points.flatten()))


def random_maps() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(9, 13, dtype=torch.float64), torch.rand(9, 13, dtype=torch.float64)


def test_correlation_is_pearsons() -> None:
    a, b = random_maps()
    assert correlation(a, b) == pytest.approx(stats.pearsonr(a.flatten(), b.flatten()).statistic, abs=1e-12)
    assert correlation(a, 3 * a + 2) == pytest.approx(1)
    assert correlation(a, torch.ones_like(a)) == 0


def mit_similarity(map1: np.ndarray, map2: np.ndarray) -> float:
    """``similarity.m`` of the MIT benchmark, line by line."""
    map1 = (map1 - map1.min()) / (map1.max() - map1.min())
    map1 = map1 / map1.sum()
    map2 = (map2 - map2.min()) / (map2.max() - map2.min())
    map2 = map2 / map2.sum()
    return float(np.minimum(map1, map2).sum())


def mit_auc(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """``AUC_Judd.m`` of the MIT benchmark without its jitter, line by line."""
    s, f = saliency.ravel(), fixations.ravel()
    thresholds = np.sort(s[f > 0])[::-1]
    count, pixels = len(thresholds), len(s)
    tp, fp = np.zeros(count + 2), np.zeros(count + 2)
    tp[-1] = fp[-1] = 1
    for i, threshold in enumerate(thresholds, start=1):
        tp[i] = i / count
        fp[i] = ((s >= threshold).sum() - i) / (pixels - count)
    return float(np.trapezoid(tp, fp))


def test_similarity_by_hand() -> None:
    p = torch.tensor([[1.0, 1.0], [2.0, 4.0]])  # less 1: 0 0 1 3, of sum 4
    q = torch.tensor([[4.0, 2.0], [1.0, 1.0]])  # less 1: 3 1 0 0, of sum 4
    assert similarity(p, q) == 0
    r = torch.tensor([[4.0, 1.0], [3.0, 4.0]])  # less 1: 3 0 2 3, of sum 8; with p: min(1/4, 2/8) + min(3/4, 3/8)
    assert similarity(p, r) == pytest.approx(1 / 4 + 3 / 8)
    assert similarity(torch.ones(2, 2), p) == similarity(p, torch.ones(2, 2)) == similarity(torch.zeros(2, 2), p) == 0


def test_similarity_is_the_benchmarks() -> None:
    for _ in range(5):
        p, q = random_maps()
        assert similarity(p + 0.5, q) == pytest.approx(mit_similarity(p.numpy() + 0.5, q.numpy()), abs=1e-12)
    assert similarity(p * 0.01 + 7, p) == pytest.approx(1, abs=1e-9)  # an offset changes nothing


def test_divergence_is_scipys_relative_entropy_of_the_target() -> None:
    p, q = random_maps()
    assert divergence(p, q) == pytest.approx(stats.entropy(q.flatten(), p.flatten()), abs=1e-10)
    assert divergence(p, p) == pytest.approx(0, abs=1e-12)


def test_scanpath_is_the_mean_z_score_at_fixations() -> None:
    p, _ = random_maps()
    points = torch.zeros(9, 13, dtype=torch.bool)
    points[2, 3] = points[7, 11] = True
    z = stats.zscore(p.numpy(), axis=None, ddof=1)  # MATLAB's std divides by N - 1
    assert scanpath(p, points) == pytest.approx((z[2, 3] + z[7, 11]) / 2, abs=1e-12)
    assert scanpath(torch.ones(9, 13), points) == 0


@pytest.mark.parametrize("count", [1, 2, 36, 116])
def test_auc_is_the_benchmarks_where_no_values_are_equal(count: int) -> None:
    p, _ = random_maps()
    points = torch.zeros(9 * 13, dtype=torch.bool)
    points[torch.randperm(9 * 13)[:count]] = True
    points = points.view(9, 13)
    assert auc_judd(p, points) == pytest.approx(mit_auc(p.numpy(), points.numpy()), abs=1e-12)


def test_auc_by_hand() -> None:
    p = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    points = torch.tensor([[True, False, True, False]])
    # thresholds 0.9: hits 1/2, false 0; 0.7: hits 1, false 1/2; then (1, 1)
    assert auc_judd(p, points) == pytest.approx(0.5 * (0.5 + 1) / 2 + 0.5 * 1)
    assert auc_judd(torch.tensor([[1.0, 0.0, 0.9, 0.1]]), points) == 1
    assert auc_judd(torch.tensor([[0.0, 1.0, 0.1, 0.9]]), points) == pytest.approx(1 / 4)  # half of 1/2 everywhere
    assert auc_judd(p, torch.ones(1, 4, dtype=torch.bool)) == 0.5


@pytest.mark.parametrize(
    "values",
    [(1, 1, 1, 1, 1), (2, 1, 1, 0, 0), (0, 0, 1, 0, 0), (2, 1, 2, 1, 2), (0, 1, 0, 1, 1), (3, 1, 1, 1, 0)],
)
def test_auc_of_equal_values_is_the_mean_over_all_their_orders(values: tuple[int, ...]) -> None:
    """The mean over the benchmark's jitter, computed over all orders of the noise."""
    points = np.array([True, True, False, False, False])
    orders = [mit_auc(np.array(values) + np.array(noise) / 100, points) for noise in itertools.permutations(range(5))]
    result = auc_judd(torch.tensor([values], dtype=torch.float64), torch.from_numpy(points)[None])
    assert result == pytest.approx(np.mean(orders), abs=1e-12)


def test_auc_of_chance() -> None:
    """A constant map with N fixations: half of all pairs, plus half a fixation above the lowest one."""
    points = torch.zeros(20, 30, dtype=torch.bool)
    points.view(-1)[:36] = True
    assert auc_judd(torch.ones(20, 30), points) == pytest.approx(0.5 + 0.5 / 37)


def test_metrics_are_means_over_images_and_fixations_are_optional() -> None:
    metric = SaliencyMetrics()
    (a, b), (c, d) = random_maps(), random_maps()
    points = torch.rand(9, 13) < 0.2
    metric.update(a[None], b)
    metric.update(c[None], d, points)
    result = metric.compute()
    assert result["cc"] == pytest.approx((correlation(a, b) + correlation(c, d)) / 2)
    assert result["nss"] == pytest.approx(scanpath(c, points))
    assert set(result) == {"cc", "sim", "kld", "nss", "auc_judd"}


def test_empty_targets_are_not_counted_and_nan_is_refused() -> None:
    metric = SaliencyMetrics()
    metric.update(torch.rand(1, 4, 4), torch.zeros(4, 4))
    assert metric.compute() == {}
    with pytest.raises(ValueError, match="NaN"):
        metric.update(torch.full((1, 4, 4), float("nan")), torch.rand(4, 4))


def test_the_scale_of_prediction_and_target_does_not_matter() -> None:
    a, b = random_maps()
    original, scaled = SaliencyMetrics(), SaliencyMetrics()
    points = torch.rand(9, 13) < 0.2
    original.update(a[None], b, points)
    scaled.update(a[None] * 0.01, b * 255, points)
    for key, value in original.compute().items():
        assert scaled.compute()[key] == pytest.approx(value, rel=1e-6), key
    assert np.isfinite(list(original.compute().values())).all()
