"""How far probabilities and intervals can be trusted: sums over all pixels, no subsampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from densemble.metrics.base import MetricValues

BINS = 15
LEVELS = (0.5, 0.8, 0.9, 0.95)
_SMALLEST = torch.finfo(torch.float32).eps
"""Where the logarithm of a probability is cut off, as scikit-learn does with float32."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence lies in [low, high).

    Attributes:
        low: lower edge.
        high: upper edge.
        count: of predictions.
        confidence: mean; ``None`` where there are none.
        accuracy: share that is right; ``None`` where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


class Reliability:
    """Confidence against accuracy in bins of equal width (Naeini et al. 2015; Guo et al. 2017).

    Predictions of confidence exactly 1 have a bin of their own, as in torchmetrics.

    Args:
        bins: between 0 and 1.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._edges = torch.linspace(0, 1, bins + 1)
        self._counts = torch.zeros(2, bins + 1, dtype=torch.int64)
        self._confidence = torch.zeros(bins + 1, dtype=torch.float64)

    def update(self, confidence: Tensor, right: Tensor) -> None:
        """Adds predictions: confidence ``(N,)`` in [0, 1] and whether each is right, bool ``(N,)``."""
        confidence, cells = confidence.float(), len(self._edges)
        place = find_bins(confidence, self._edges)
        self._counts += torch.bincount(place + cells * right, minlength=2 * cells).view(2, cells)
        self._confidence += torch.bincount(place, weights=confidence.double(), minlength=cells)

    def table(self) -> list[ReliabilityBin]:
        """Every bin from 0 upwards; the last, for exactly 1, has no width."""
        edges = [*self._edges.tolist(), 1.0]
        rows = zip(edges, edges[1:], self._counts.sum(0).tolist(), self._confidence, self._counts[1], strict=False)
        return [
            ReliabilityBin(low, high, n, float(total) / n if n else None, int(right) / n if n else None)
            for low, high, n, total, right in rows
        ]

    def ece(self) -> float | None:
        """Expected calibration error: mean distance of confidence and accuracy; ``None`` where nothing was added."""
        total = int(self._counts.sum())
        gaps = (self._counts[1] - self._confidence).abs()
        return float(gaps.sum()) / total if total else None


def find_bins(probabilities: Tensor, edges: Tensor) -> Tensor:
    """Number of the bin of each probability in [0, 1]: the last of the evenly spaced edges that is not above it."""
    # The nearest edge, one less where it is above: exactly what torch.bucketize finds, in a third of its time.
    nearest = (probabilities * (len(edges) - 1)).round_().long().clamp_(0, len(edges) - 1)  # NaN has no number
    return nearest - (probabilities < edges.index_select(0, nearest)).long()


def where(mask: Tensor) -> Tensor:
    """Numbers of the places in a bool tensor ``(N,)`` that are true, in order."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))  # nine times as fast as nonzero() on a CPU


def _only(probabilities: Tensor, pixels: Tensor) -> Tensor:
    """Zeros where pixels do not count: they add nothing to a sum, and taking them out would cost more."""
    if len(pixels) == probabilities.shape[1]:
        return probabilities
    left_out = torch.ones(probabilities.shape[1], dtype=torch.bool).index_fill_(0, pixels, False)
    return probabilities.masked_fill(left_out, 0)


class CategoricalScores:
    """Class-wise calibration error, Brier score and negative log-likelihood of one class per pixel.

    The class-wise error is the mean over the scored classes of the binned calibration error of p_k against 1[y = k]
    (Nixon et al. 2019; Kull et al. 2019). The Brier score is a sum over the classes, 0 to 2 (Brier 1950).

    Args:
        scored: bool ``(K,)``, which classes enter the class-wise mean.
        bins: between 0 and 1.
    """

    def __init__(self, scored: Tensor, bins: int = BINS) -> None:
        classes = len(scored)
        self._scored = scored
        self._edges = torch.linspace(0, 1, bins + 1)
        self._gaps = torch.zeros(classes, bins + 1, dtype=torch.float64)
        self._pixels = 0
        self._squares = self._log_loss = 0.0

    def update(self, probabilities: Tensor, pixels: Tensor, labels: Tensor) -> None:
        """Adds one picture: probabilities float32 ``(K, N)``, and those pixels of the N that count, with their labels.

        Args:
            probabilities: of all pixels.
            pixels: numbers ``(n,)`` of those that count, each once.
            labels: theirs ``(n,)``, 0..K-1.
        """
        classes, cells = self._gaps.shape
        true = probabilities.flatten().index_select(0, labels * probabilities.shape[1] + pixels)
        counting = _only(probabilities, pixels)
        squares = torch.linalg.vector_norm(counting, dim=1).double().square().sum()
        self._pixels += len(pixels)
        self._squares += float(squares) - 2 * float(true.sum()) + len(pixels)
        self._log_loss -= float(true.clamp(min=_SMALLEST).log_().sum())
        hits = torch.bincount(labels * cells + find_bins(true, self._edges), minlength=classes * cells)
        self._gaps += self._confidences(counting) - hits.view(classes, cells)

    def _confidences(self, p: Tensor) -> Tensor:
        """Sum of the probabilities in every bin of every class.

        Most probabilities of most pixels lie in the lowest bin: it is what the others leave of the whole.
        """
        classes, cells = self._gaps.shape
        flat = p.flatten()
        above = where(flat >= self._edges[1])
        values = flat.index_select(0, above)
        per_class = torch.searchsorted(above, torch.arange(classes + 1) * p.shape[1]).diff()
        place = torch.arange(0, classes * cells, cells).repeat_interleave(per_class) + find_bins(values, self._edges)
        sums = torch.bincount(place, weights=values.double(), minlength=classes * cells).double().view(classes, cells)
        sums[:, 0] = p.sum(1).double() - sums.sum(1)
        return sums

    def compute(self) -> MetricValues:
        """``classwise_ece brier nll``, the last in nats per pixel; ``None`` where nothing was added."""
        if not self._pixels:
            return dict.fromkeys(("classwise_ece", "brier", "nll"))
        return {
            "classwise_ece": float(self._gaps[self._scored].abs().sum(1).mean()) / self._pixels,
            "brier": self._squares / self._pixels,
            "nll": self._log_loss / self._pixels,
        }


class BernoulliScores:
    """Brier score, 0 to 1, and negative log-likelihood of probabilities of something that is there or not."""

    def __init__(self) -> None:
        self._values = 0
        self._squares = self._log_loss = 0.0

    def update(self, probabilities: Tensor, positive: Tensor) -> None:
        """Adds values: probabilities ``(N,)`` and whether each is positive, bool ``(N,)``."""
        p = probabilities.float()
        self._values += p.numel()
        self._squares += float((p - positive.float()).square().sum(dtype=torch.float64))
        chosen = torch.where(positive, p, 1 - p).clamp(min=_SMALLEST)
        self._log_loss -= float(chosen.log().sum(dtype=torch.float64))

    def compute(self) -> MetricValues:
        """``brier nll``, the last in nats per value; ``None`` where nothing was added."""
        if not self._values:
            return dict.fromkeys(("brier", "nll"))
        return {"brier": self._squares / self._values, "nll": self._log_loss / self._values}


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
        """Adds one picture: mean and variance >= 0 ``(1, H, W)``, targets ``(H, W)``, NaN where unknown."""
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
