"""Trust: whether uncertainty finds the errors, and whether guarantees hold."""

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
from densemble.shapes import Size, size_of
from densemble.tasks import Task

TRUSTED = ("labels", "masks", "values")
"""Kinds of targets whose predictions are right or wrong, or so far off, at each pixel."""


class Trust:
    """Risk-coverage, coverage of Gaussian intervals of values, and coverage of a guarantee; images go in one by one.

    Args:
        task: what the maps mean.
        guarantee: of the predictions.
    """

    def __init__(self, task: Task, guarantee: Guarantee | None = None) -> None:
        self._task = task
        self._guarantee = guarantee
        self._selective = RiskCoverage()
        self._intervals = IntervalCoverage(invalid_below=task.invalid_below) if task.target_kind == "values" else None
        self._held: list[tuple[float, float]] = []

    def update(self, prediction: Prediction, target: Tensor, guarantee: Guarantee | None = None) -> None:
        """Adds one image.

        Args:
            prediction: batch of one; maps of another size than the target's are resized to it.
            target: as the task has it.
            guarantee: that this image is checked with; default the one given at the start.
        """
        if self._task.target_kind not in TRUSTED:
            return
        size = size_of(target)
        wanted, valid = self._task.as_maps(target)
        mean = resize_maps(prediction.mean.cpu(), size)
        self._selective.update(*_uncertainty(prediction, mean, wanted, valid, self._task, size))
        if self._intervals is not None:
            self._intervals.update(mean[0], resize_maps(prediction.spread().cpu(), size)[0], target)
        checked = guarantee or self._guarantee
        if checked is not None and bool(valid.any()):
            self._held += _held(checked, prediction, mean, wanted, valid, size)

    def compute(self) -> dict[str, Any]:
        """What the task has of ``risk_coverage``, ``interval_coverage`` and ``guarantee``, as plain values."""
        if self._task.target_kind not in TRUSTED:
            return {}
        by = "variance" if self._intervals is not None else "entropy"
        curve = [list(point) for point in self._selective.curve()]
        found: dict[str, Any] = {"risk_coverage": {"by": by, **self._selective.compute(), "curve": curve}}
        if self._intervals is not None:
            found["interval_coverage"] = self._intervals.compute()
        if self._guarantee is not None and self._held:
            found["guarantee"] = {**self._guarantee.describe(), **self._coverage()}
        return found

    def _coverage(self) -> dict[str, Any]:
        assert self._guarantee is not None
        shares, widths = zip(*self._held, strict=True)
        described = self._guarantee.describe()
        promised = 1 - float(described.get("miscoverage", described.get("risk", 0.0)))
        _, low, high = bootstrap_mean(torch.tensor(shares, dtype=torch.float64))
        return {
            "promised": promised, "coverage": sum(shares) / len(shares), "low": low, "high": high,
            "mean_size": sum(widths) / len(widths), "checked_on": len(shares),
        }  # fmt: skip


def reliability_table(metric: Metric) -> list[dict[str, float | None]] | None:
    """Bins of confidence with counts, mean confidence and accuracy; ``None`` where a task has no confidence."""
    sums = metric.sums("ece") if "ece" in metric.objectives else None
    return None if sums is None else reliability_bins(sums)


def _uncertainty(
    prediction: Prediction, mean: Tensor, wanted: Tensor, valid: Tensor, task: Task, size: Size
) -> tuple[Tensor, Tensor, Tensor]:
    """Uncertainty, error and validity of each pixel, all ``(H, W)``."""
    known = valid.all(0)
    if task.distribution == "none":
        spread = resize_maps(prediction.spread().cpu(), size)[0].mean(0)
        return spread, (mean[0] - wanted).abs().mean(0), known
    uncertainty = entropy(mean, task.distribution)[0]  # of the resized probabilities: an entropy cannot be resized
    if task.distribution == "categorical":
        return uncertainty, (mean[0].argmax(0) != wanted.argmax(0)).double(), known
    return uncertainty, ((mean[0] >= 0.5) != (wanted >= 0.5)).double().mean(0), known


def _held(
    guarantee: Guarantee, prediction: Prediction, mean: Tensor, wanted: Tensor, valid: Tensor, size: Size
) -> list[tuple[float, float]]:
    """Covered share of the target, and number of classes or width; empty where the target has nothing to cover."""
    if isinstance(guarantee, ConformalInterval):
        if prediction.lower is None or prediction.upper is None:  # predicted without some member
            return []
        lower, upper = (resize_maps(end.cpu(), size)[0] for end in (prediction.lower, prediction.upper))
        inside = ((lower <= wanted) & (wanted <= upper))[valid]
        return [(float(inside.double().mean()), float((upper - lower)[valid].mean()))]
    included, true = guarantee.apply(mean)[0], valid & (wanted > 0.5)
    if prediction.left_out or not true.any():
        return []
    count = (included & valid).sum() / valid.any(0).sum()
    return [(float(torch.as_tensor(included[true]).double().mean()), float(count))]
