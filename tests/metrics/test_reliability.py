"""Reliability, proper scores and interval coverage against torchmetrics, scikit-learn and simulated data."""

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from densemble.metrics import MultilabelMetrics, SegmentationMetrics
from densemble.metrics.reliability import (
    BINS,
    IntervalCoverage,
    calibration_error,
    confidence_bins,
    find_bins,
    reliability_bins,
)

K, VOID = 4, 9


def images() -> list[tuple[Tensor, Tensor]]:
    result = []
    for height in (30, 17, 41):
        probabilities = torch.softmax(3 * torch.randn(K, height, 20), 0)
        labels = torch.where(torch.rand(height, 20) < 0.6, probabilities.argmax(0), torch.randint(0, K, (height, 20)))
        labels[torch.rand(height, 20) < 0.1] = VOID
        result.append((probabilities, labels))
    # Certain, and confidences that lie exactly on edges of bins.
    edges = torch.linspace(0, 1, BINS + 1)[5:]
    on_edges = torch.stack([edges, 1 - edges, 0 * edges, 0 * edges])[:, None]
    result.append((on_edges, torch.tensor([[0, 1, 0] * 3 + [0, 1]])))
    return result


def stacked() -> tuple[Tensor, Tensor]:
    """Probabilities ``(N, K)`` and labels ``(N,)`` of the scored pixels."""
    torch.manual_seed(0)
    pixels = [(p.flatten(1).T[y.flatten() != VOID], y[y != VOID]) for p, y in images()]
    return torch.cat([p for p, _ in pixels]), torch.cat([y for _, y in pixels])


def segmentation() -> SegmentationMetrics:
    torch.manual_seed(0)
    metric = SegmentationMetrics(K, VOID)
    for probabilities, labels in images():
        metric.update(probabilities, labels)
    return metric


def test_ece_is_torchmetrics() -> None:
    metric, (p, y) = segmentation(), stacked()
    assert (p.max(1).values == 1).any()
    reference = float(MulticlassCalibrationError(K, n_bins=BINS, norm="l1")(p, y))
    assert metric.compute()["ece"] == pytest.approx(reference, abs=1e-6)


def test_scores_of_classes_are_torchmetrics_and_scikit_learns() -> None:
    result, (p, y) = segmentation().compute(), stacked()
    hot = torch.nn.functional.one_hot(y, K)
    each = [float(BinaryCalibrationError(n_bins=BINS, norm="l1")(p[:, k], hot[:, k])) for k in range(K)]
    assert result["classwise_ece"] == pytest.approx(np.mean(each), abs=1e-6)
    assert result["nll"] == pytest.approx(log_loss(y.numpy(), p.numpy()), abs=1e-6)
    assert result["brier"] == pytest.approx(sum(brier_score_loss(hot[:, k], p[:, k]) for k in range(K)), abs=1e-6)


def test_scores_of_masks_are_torchmetrics_and_scikit_learns() -> None:
    torch.manual_seed(0)
    metric, kept = MultilabelMetrics(K), []
    for probabilities, _ in images():
        target = (torch.rand(probabilities.shape) < probabilities).long()
        target[torch.rand(probabilities.shape) < 0.1] = 255
        metric.update(probabilities, target)
        kept.append((probabilities[target != 255], target[target != 255]))
    p, y = (torch.cat([pair[i] for pair in kept]) for i in (0, 1))
    result = metric.compute()
    reference = float(BinaryCalibrationError(n_bins=BINS, norm="l1")(p, y))
    assert result["ece"] == pytest.approx(reference, abs=1e-6)
    assert result["nll"] == pytest.approx(log_loss(y.numpy(), p.numpy()), abs=1e-6)
    assert result["brier"] == pytest.approx(brier_score_loss(y, p), abs=1e-6)


def test_the_table_by_hand() -> None:
    (sums,) = confidence_bins(torch.tensor([[0.5, 0.75, 1.0]]), torch.tensor([True, False, True]), bins=2)
    assert list(reliability_bins(sums)[0]) == ["low", "high", "count", "confidence", "accuracy"]
    rows = [tuple(row.values()) for row in reliability_bins(sums)]
    assert rows == [(0, 0.5, 0, None, None), (0.5, 1, 2, 0.625, 0.5), (1, 1, 1, 1, 1)]
    assert float(calibration_error(sums)) == pytest.approx(2 / 3 * 0.125)
    assert calibration_error(torch.zeros_like(sums)).isnan()


@pytest.mark.parametrize("bins", [2, 10, 15, 100])
def test_bins_are_those_of_bucketize_around_every_edge(bins: int) -> None:
    edges = torch.linspace(0, 1, bins + 1)
    around = torch.cat([edges, edges.nextafter(torch.tensor(2.0))[:-1], edges.nextafter(torch.tensor(-1.0))[1:]])
    probabilities = torch.cat([around, torch.rand(1000)])
    assert torch.equal(find_bins(probabilities, edges), torch.bucketize(probabilities, edges, right=True) - 1)


def test_without_pixels_metrics_are_none_and_nan_is_reported() -> None:
    metric = SegmentationMetrics(K, VOID)
    metric.update(torch.rand(K, 2, 2), torch.full((2, 2), VOID))
    assert [metric.compute()[key] for key in ("ece", "classwise_ece", "brier", "nll")] == [None] * 4
    metric.update(torch.full((K, 2, 2), torch.nan), torch.zeros(2, 2, dtype=torch.uint8))
    assert all(np.isnan(metric.compute()[key]) for key in ("ece", "classwise_ece", "brier", "nll"))


def simulated(factor: float) -> IntervalCoverage:
    """Gaussian errors whose predicted standard deviation is ``factor`` times the true one."""
    torch.manual_seed(0)
    metric = IntervalCoverage(invalid_below=0.0)
    for height in (200, 150):
        deviation = 0.5 + torch.rand(1, height, 100)
        target = 20 + torch.randn(height, 100)
        mean = target + deviation * torch.randn(1, height, 100)
        target[:5], target[5:8] = torch.nan, -1.0
        metric.update(mean, (factor * deviation).square(), target)
    return metric


def test_true_variances_have_the_nominal_coverage() -> None:
    result = simulated(1.0).compute()
    assert result["levels"] == [0.5, 0.8, 0.9, 0.95]
    assert result["coverage"] == pytest.approx(result["levels"], abs=0.01)
    assert result["calibration_error"] < 0.01  # type: ignore[operator]
    # Mean width of a 95 % interval: 2 x 1.96 x the mean deviation of 1.
    assert result["width"][3] == pytest.approx(3.92, rel=0.02)  # type: ignore[index]


def test_wrong_variances_are_detected() -> None:
    true, small = simulated(1.0).compute(), simulated(0.5).compute()
    assert small["coverage"][3] == pytest.approx(0.673, abs=0.01)  # type: ignore[index]  # P(|z| < 0.98)
    gaps = [level - share for level, share in zip(small["levels"], small["coverage"], strict=True)]  # type: ignore[arg-type]
    assert small["calibration_error"] == pytest.approx(sum(gaps) / 4)
    assert small["gaussian_nll"] > true["gaussian_nll"]  # type: ignore[operator]


def test_gaussian_likelihood_is_torchs_and_zero_variance_has_none() -> None:
    metric = IntervalCoverage()
    mean, variance, target = torch.randn(1, 9, 9), 0.1 + torch.rand(1, 9, 9), torch.randn(9, 9)
    metric.update(mean, variance, target)
    reference = torch.nn.functional.gaussian_nll_loss(mean[0], target, variance[0], full=True)
    assert metric.compute()["gaussian_nll"] == pytest.approx(float(reference), rel=1e-5)
    metric.update(mean, torch.zeros_like(variance), mean[0])
    assert metric.compute()["gaussian_nll"] is None
    assert all(share >= 0.5 for share in metric.compute()["coverage"])  # type: ignore[union-attr]  # exact hits are inside
    assert IntervalCoverage().compute()["calibration_error"] is None
