"""Calibration of probabilities and intervals: sums over all pixels, without subsampling."""

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

from densemble.metrics.metric import MetricValues, counted, is_valid, ratio, totals_per_row

BINS = 15
LEVELS = (0.5, 0.8, 0.9, 0.95)
_SMALLEST = torch.finfo(torch.float32).eps
"""Lower limit of a probability in a logarithm, the same as in scikit-learn for float32."""


def confidence_bins(confidence: Tensor, right: Tensor, bins: int = BINS) -> Tensor:
    """Statistics of confidence and accuracy in bins of equal width (Naeini et al. 2015; Guo et al. 2017).

    Predictions with a confidence of exactly 1 have a separate bin, as in torchmetrics.

    Args:
        confidence: in [0, 1], ``(M, N)``.
        right: whether each prediction is correct, bool, broadcastable to ``confidence``.
        bins: number of bins between 0 and 1.

    Returns:
        float64 ``(M, 3 (bins + 1))``: numbers of wrong and of correct predictions, and sums of confidences, per bin.
    """
    cells = bins + 1
    indices = find_bins(confidence, _edges(bins))
    counts = totals_per_row(torch.add(indices, right, alpha=cells), 2 * cells)
    return torch.cat([counts, totals_per_row(indices, cells, confidence)], dim=1)


@lru_cache(maxsize=8)
def _edges(bins: int) -> Tensor:
    return torch.linspace(0, 1, bins + 1)


def calibration_error(sums: Tensor) -> Tensor:
    """Expected calibration error from :func:`confidence_bins`: mean distance between confidence and accuracy."""
    wrong, right, confidence = sums.chunk(3, dim=-1)
    return ratio((right - confidence).abs().sum(-1), (wrong + right).sum(-1))


def reliability_bins(sums: Tensor) -> list[dict[str, float | None]]:
    """List the bins of :func:`confidence_bins` from 0 upwards; the last, for exactly 1, has no width.

    Returns:
        For each bin: its ends ``low`` and ``high``, the ``count`` of predictions, and their mean ``confidence`` and
        ``accuracy``, ``None`` if there are no predictions.
    """
    wrong, right, confidence = sums.chunk(3)
    edges = torch.linspace(0, 1, len(wrong)).tolist()
    columns = zip(edges, [*edges[1:], 1.0], (wrong + right).tolist(), confidence.tolist(), right.tolist(), strict=True)
    return [
        {
            "low": low, "high": high, "count": int(count),
            "confidence": total / count if count else None, "accuracy": hits / count if count else None,
        }
        for low, high, count, total, hits in columns
    ]  # fmt: skip


def find_bins(probabilities: Tensor, edges: Tensor) -> Tensor:
    """Return the bin of each probability in [0, 1]: the index of the last evenly spaced edge that is not above it."""
    # The nearest edge, or the one before if the nearest is above: exactly torch.bucketize, in a third of its time.
    last = edges.shape[0] - 1
    nearest = (probabilities * last).round_().long().clamp_(0, last)  # the cast of NaN is undefined
    return nearest.sub_((probabilities < edges.index_select(0, nearest.flatten()).view_as(nearest)).long())


def log_losses(probabilities: Tensor) -> Tensor:
    """Sum the negative logarithms, in nats, of the probabilities ``(M, N)`` of the targets, with N: ``(M, 2)``."""
    logarithms = probabilities.clamp(min=_SMALLEST).log_()
    return counted(-logarithms.sum(1, dtype=torch.float64), probabilities.shape[1])


class IntervalCoverage:
    """Coverage of central Gaussian intervals compared with their nominal level (Kuleshov et al. 2018).

    Args:
        levels: nominal coverages between 0 and 1.
        invalid_below: targets up to this value are invalid, as NaN is; ``None``: only NaN is.
    """

    def __init__(self, levels: Sequence[float] = LEVELS, invalid_below: float | None = None) -> None:
        self._levels = tuple(levels)
        self._invalid_below = invalid_below
        self._reach = [NormalDist().inv_cdf((1 + level) / 2) for level in levels]
        self._inside = [0] * len(self._levels)
        self._pixels = 0
        self._deviation = self._log_loss = 0.0

    def update(self, mean: Tensor, variance: Tensor, target: Tensor) -> None:
        """Add one image: mean and variance >= 0 ``(1, H, W)``, target ``(H, W)``, NaN where unknown."""
        valid = is_valid(target, self._invalid_below)
        error = (mean.squeeze(0)[valid].double() - target[valid].double()).abs()
        spread = variance.squeeze(0)[valid].double()
        deviation = spread.sqrt()
        self._pixels += error.numel()
        self._inside = [
            inside + int((error <= reach * deviation).sum())
            for inside, reach in zip(self._inside, self._reach, strict=True)
        ]
        self._deviation += float(deviation.sum())
        density = torch.where(spread > 0, (2 * torch.pi * spread).log() + error**2 / spread, torch.nan)
        self._log_loss += float(density.sum()) / 2

    def compute(self) -> MetricValues:
        """Return the metrics; all ``None`` if no pixel is valid.

        Returns:
            ``levels``; ``coverage``, the share of targets inside, and ``width``, the mean width in the target's unit,
            one number per level each; ``calibration_error``, the mean distance between coverage and level;
            ``gaussian_nll`` in nats per pixel, ``None`` if a variance is 0, because its density is undefined.
        """
        if not self._pixels:
            undefined = dict.fromkeys(("coverage", "width", "calibration_error", "gaussian_nll"))
            return {"levels": list(self._levels), **undefined}
        coverage = [inside / self._pixels for inside in self._inside]
        gaps = [abs(share - level) for share, level in zip(coverage, self._levels, strict=True)]
        log_loss = self._log_loss / self._pixels
        return {
            "levels": list(self._levels),
            "coverage": list(coverage),
            "width": [2 * reach * self._deviation / self._pixels for reach in self._reach],
            "calibration_error": sum(gaps) / len(gaps),
            "gaussian_nll": log_loss if log_loss == log_loss else None,
        }
