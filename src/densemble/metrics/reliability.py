"""How far probabilities and intervals can be trusted: sums over all pixels, no subsampling."""

from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from densemble.metrics.metric import MetricValues, counted, ratio, totals_per_row

BINS = 15
LEVELS = (0.5, 0.8, 0.9, 0.95)
_SMALLEST = torch.finfo(torch.float32).eps
"""Where the logarithm of a probability is cut off, as scikit-learn does with float32."""


def confidence_bins(confidence: Tensor, right: Tensor, bins: int = BINS) -> Tensor:
    """Statistics of confidence against accuracy in bins of equal width (Naeini et al. 2015; Guo et al. 2017).

    Predictions of confidence exactly 1 have a bin of their own, as in torchmetrics.

    Args:
        confidence: in [0, 1], ``(M, N)``.
        right: whether each prediction is, bool, broadcastable to it.
        bins: between 0 and 1.

    Returns:
        float64 ``(M, 3 (bins + 1))``: wrong predictions in each bin, right ones, and the sum of their confidences.
    """
    cells = bins + 1
    place = find_bins(confidence, torch.linspace(0, 1, cells))
    counts = totals_per_row(place + cells * right, 2 * cells)
    return torch.cat([counts, totals_per_row(place, cells, confidence)], dim=1)


def calibration_error(sums: Tensor) -> Tensor:
    """Expected calibration error from :func:`confidence_bins`: mean distance of confidence and accuracy."""
    wrong, right, confidence = sums.chunk(3, dim=-1)
    return ratio((right - confidence).abs().sum(-1), (wrong + right).sum(-1))


def reliability_bins(sums: Tensor) -> list[dict[str, float | None]]:
    """Every bin of :func:`confidence_bins` from 0 upwards; the last, for exactly 1, has no width.

    Returns:
        ``low`` and ``high``, the ends of the bin; ``count`` of predictions, their mean ``confidence`` and ``accuracy``,
        ``None`` where there are none.
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
    """Number of the bin of each probability in [0, 1]: the last of the evenly spaced edges that is not above it."""
    # The nearest edge, one less where it is above: exactly what torch.bucketize finds, in a third of its time.
    nearest = (probabilities * (len(edges) - 1)).round_().long().clamp_(0, len(edges) - 1)  # NaN has no number
    return nearest - (probabilities < edges.index_select(0, nearest.flatten()).view_as(nearest)).long()


def log_losses(probabilities: Tensor) -> Tensor:
    """Total negative logarithm, in nats, of the probabilities ``(M, N)`` of what is there, and N: ``(M, 2)``."""
    logarithms = probabilities.clamp(min=_SMALLEST).log_()
    return counted(-logarithms.sum(1, dtype=torch.float64), probabilities.shape[1])


class IntervalCoverage:
    """How often the truth lies in central intervals of a Gaussian, against how often it should (Kuleshov et al. 2018).

    Args:
        levels: nominal shares between 0 and 1.
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
        """Adds one image: mean and variance >= 0 ``(1, H, W)``, targets ``(H, W)``, NaN where unknown."""
        valid = torch.isfinite(target)
        if self._invalid_below is not None:
            valid &= target > self._invalid_below
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
        """The metrics; all ``None`` where nothing is valid.

        Returns:
            ``levels``; ``coverage``, the share of targets inside, and ``width``, the mean width in the target's unit,
            one each; ``calibration_error``, the mean distance of coverage and level; ``gaussian_nll`` in nats per
            pixel, ``None`` where a variance is 0, for it has no density.
        """
        found: MetricValues = {"levels": list(self._levels), "coverage": None, "width": None}
        if not self._pixels:
            return {**found, "calibration_error": None, "gaussian_nll": None}
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
