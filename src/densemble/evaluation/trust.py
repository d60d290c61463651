"""Trust: does the uncertainty find the errors, and do the guarantees hold?"""

from typing import Any

import torch
from torch import Tensor

from densemble.ensemble.guarantee import ConformalInterval, Guarantee
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import entropy
from densemble.evaluation.bootstrap import bootstrap_mean
from densemble.metrics import Metric
from densemble.metrics.reliability import IntervalCoverage, reliability_bins
from densemble.metrics.selective import RiskCoverage
from densemble.shapes import size_of
from densemble.tasks import Task

TRUSTED = ("labels", "masks", "values")
"""Target kinds that define an error at each pixel."""


class Trust:
    """Risk-coverage curve, coverage of Gaussian intervals of values, and coverage of a guarantee, image by image.

    Args:
        task: meaning of the maps.
        guarantee: guarantee of the predictions.
    """

    def __init__(self, task: Task, guarantee: Guarantee | None = None) -> None:
        self._task = task
        self._guarantee = guarantee
        self._selective = RiskCoverage()
        self._intervals = IntervalCoverage(invalid_below=task.invalid_below) if task.target_kind == "values" else None
        self._coverages: list[tuple[float, float]] = []

    def update(self, prediction: Prediction, target: Tensor, guarantee: Guarantee | None = None) -> None:
        """Add one image.

        Args:
            prediction: a batch of one; maps of another size than the target are resized to it.
            target: target in the form of the task.
            guarantee: guarantee to check with this image; default: the guarantee of the constructor.
        """
        if self._task.target_kind not in TRUSTED:
            return
        size = size_of(target)
        target_maps, valid = self._task.as_maps(target)
        mean = resize_maps(prediction.mean.cpu(), size)
        self._selective.update(*_uncertainty(prediction, mean, target_maps, valid, self._task))
        if self._intervals is not None:
            self._intervals.update(mean[0], resize_maps(prediction.spread().cpu(), size)[0], target)
        checked = guarantee or self._guarantee
        if checked is not None and bool(valid.any()):
            self._coverages += _coverage_of_image(checked, prediction, mean, target_maps, valid)

    def compute(self) -> dict[str, Any]:
        """Return ``risk_coverage``, ``interval_coverage`` and ``guarantee`` as plain values, if the task has them."""
        if self._task.target_kind not in TRUSTED:
            return {}
        by = "variance" if self._intervals is not None else "entropy"
        curve = [list(point) for point in self._selective.curve()]
        values: dict[str, Any] = {"risk_coverage": {"by": by, **self._selective.compute(), "curve": curve}}
        if self._intervals is not None:
            values["interval_coverage"] = self._intervals.compute()
        if self._guarantee is not None and self._coverages:
            values["guarantee"] = {**self._guarantee.describe(), **self._mean_coverage(self._guarantee)}
        return values

    def _mean_coverage(self, guarantee: Guarantee) -> dict[str, Any]:
        shares, widths = zip(*self._coverages, strict=True)
        described = guarantee.describe()
        promised = 1 - float(described.get("miscoverage", described.get("risk", 0.0)))
        _, low, high = bootstrap_mean(torch.tensor(shares, dtype=torch.float64))
        return {
            "promised": promised, "coverage": sum(shares) / len(shares), "low": low, "high": high,
            "mean_size": sum(widths) / len(widths), "checked_on": len(shares),
        }  # fmt: skip


def reliability_table(metric: Metric) -> list[dict[str, float | None]] | None:
    """Return bins of confidence with counts, mean confidence and accuracy; ``None`` if the task has no confidence."""
    sums = metric.sums("ece") if "ece" in metric.objectives else None
    return None if sums is None else reliability_bins(sums)


def _uncertainty(
    prediction: Prediction, mean: Tensor, target_maps: Tensor, valid: Tensor, task: Task
) -> tuple[Tensor, Tensor, Tensor]:
    """Uncertainty, error and validity of each pixel, all ``(H, W)``."""
    known = valid.all(0)
    if task.distribution == "none":
        spread = resize_maps(prediction.spread().cpu(), size_of(mean))[0].mean(0)
        return spread, (mean[0] - target_maps).abs().mean(0), known
    # The entropy of the resized probabilities: an entropy cannot be resized.
    uncertainty = entropy(mean, task.distribution)[0]
    if task.distribution == "categorical":
        return uncertainty, (mean[0].argmax(0) != target_maps.argmax(0)).double(), known
    return uncertainty, ((mean[0] >= 0.5) != (target_maps >= 0.5)).double().mean(0), known


def _coverage_of_image(
    guarantee: Guarantee, prediction: Prediction, mean: Tensor, target_maps: Tensor, valid: Tensor
) -> list[tuple[float, float]]:
    """Covered share of the target, and number of classes or width of the interval.

    Empty if the target has nothing to cover or a member was left out of the prediction.
    """
    if isinstance(guarantee, ConformalInterval):
        if prediction.lower is None or prediction.upper is None:  # predicted without some member
            return []
        lower, upper = (resize_maps(end.cpu(), size_of(mean))[0] for end in (prediction.lower, prediction.upper))
        inside = ((lower <= target_maps) & (target_maps <= upper))[valid]
        return [(float(inside.double().mean()), float((upper - lower)[valid].mean()))]
    included, true = guarantee.apply(mean)[0], valid & (target_maps > 0.5)
    if prediction.left_out or not true.any():
        return []
    count = (included & valid).sum() / valid.any(0).sum()
    return [(float(torch.as_tensor(included[true]).double().mean()), float(count))]
