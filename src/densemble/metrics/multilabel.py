"""Metrics of independent classes from counts over the whole set; ignored pixels count nowhere."""

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.metrics.base import MetricValues
from densemble.metrics.reliability import BernoulliScores, Reliability

IGNORED = 255
_BINS = 16384
_LOWEST, _HIGHEST = -32.0, 17.0
"""Bins are of equal width in log-odds between these: as fine near 0, where most pixels of a rare class lie, as
elsewhere. float32 knows no probability nearer to 1, but far smaller ones."""


class MultilabelMetrics:
    """``miou f1 map ece brier nll iou_per_class``.

    A class is found where its probability is at least 0.5; ``miou`` and ``f1`` are means over the classes that occur
    in the targets or the predictions. ``map`` is the mean over the classes that occur in the targets of the average
    precision, the sum of precision times gain of recall over all thresholds; probabilities whose log-odds differ by
    less than 0.003 count as equal, which keeps it within about 0.001 of the exact value. ``ece`` (in bins of equal
    width of the probability), ``brier`` and ``nll`` are over the values of all classes.

    Attributes:
        reliability: probability and share of positives, bin by bin.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.reliability = Reliability()
        self._scores = BernoulliScores()
        self._positives = torch.zeros(classes, _BINS, dtype=torch.int64)
        self._negatives = torch.zeros(classes, _BINS, dtype=torch.int64)
        self._hits, self._predicted, self._wanted = torch.zeros(3, classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: probabilities ``(K, H, W)``, targets ``(K, H, W)`` 0 or 1, 255 is ignored.

        Raises:
            DataError: another value in the target.
        """
        wanted = target.long()
        wrong = (wanted != 0) & (wanted != 1) & (wanted != IGNORED)
        if wrong.any():
            raise DataError(
                f"a mask holds {int(wanted[wrong][0])}; masks are 0 or 1, {IGNORED} where unknown: map others with "
                "data.label_map"
            )
        for number, (p, t) in enumerate(zip(prediction.double(), wanted, strict=True)):
            valid = t != IGNORED
            p, positive = p[valid], t[valid] == 1
            self._add(number, p, positive)
            self.reliability.update(p, positive)
            self._scores.update(p, positive)

    def _add(self, number: int, p: Tensor, positive: Tensor) -> None:
        share = (torch.logit(p).clamp(_LOWEST, _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
        place = (share * (_BINS - 1)).round().long()
        self._positives[number] += torch.bincount(place[positive], minlength=_BINS)
        self._negatives[number] += torch.bincount(place[~positive], minlength=_BINS)
        found = p >= 0.5
        self._hits[number] += (found & positive).sum()
        self._predicted[number] += found.sum()
        self._wanted[number] += positive.sum()

    def compute(self) -> MetricValues:
        """The metrics; a class that occurs nowhere has IoU ``None``."""
        both = self._predicted + self._wanted
        iou = _ratios(self._hits, both - self._hits)
        return {
            "miou": _mean(iou),
            "f1": _mean(_ratios(2 * self._hits, both)),
            "map": _mean(self._average_precision()),
            "ece": self.reliability.ece(),
            **self._scores.compute(),
            "iou_per_class": iou,
        }

    def _average_precision(self) -> list[float | None]:
        hits = self._positives.flip(1).cumsum(1).double()
        found = hits + self._negatives.flip(1).cumsum(1)
        gains = self._positives.flip(1).double()
        return _ratios((gains * hits / found.clamp(min=1)).sum(1), self._wanted)


def _ratios(parts: Tensor, wholes: Tensor) -> list[float | None]:
    return [float(a / b) if b > 0 else None for a, b in zip(parts, wholes, strict=True)]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
