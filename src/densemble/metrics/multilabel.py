"""Metrics of independent classes from counts over all images; ignored pixels are not counted."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.metrics.metric import (
    Metric,
    Objective,
    ScoredImage,
    columns,
    counted,
    mean,
    ratio,
    totals_per_row,
    true_indices,
)
from densemble.metrics.reliability import calibration_error, confidence_bins, log_losses
from densemble.metrics.segmentation import class_overlaps, mean_overlap

IGNORED = 255
"""Value of ignored pixels in masks."""


class _Bins(NamedTuple):
    """Bins of equal width in log-odds: they resolve probabilities near 0, where most pixels of a rare class are."""

    cells: int
    lowest: float
    highest: float
    dtype: torch.dtype


_FINE = _Bins(16384, -32.0, 17.0, torch.float64)
"""float32 resolves no probability closer to 1, but much smaller ones."""
_COARSE = _Bins(256, -17.0, 9.0, torch.float32)
"""Range of float16 probabilities; few enough bins to be stored for every image and candidate."""


class MultilabelMetrics(Metric):
    """``miou f1 map ece brier nll iou_per_class`` of targets ``(K, H, W)`` of 0 and 1; 255 is ignored.

    A class is predicted where its probability is at least 0.5. ``miou`` and ``f1`` are means over the classes that
    occur in the targets or the predictions. ``map`` is the mean, over the classes that occur in the targets, of the
    average precision: the sum over all thresholds of precision times increase of recall. Probabilities whose log-odds
    differ by less than 0.003 count as equal, so ``map`` is within about 0.001 of the exact value; as an objective, by
    less than 0.1, within about 0.01. ``ece`` (bins of equal width of the probability), ``brier`` (0 to 1) and ``nll``
    (in nats) are over the values of all classes.

    :meth:`update` and all statistics raise :class:`DataError` if a target has another value.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        coarse, fine = partial(_histograms, _COARSE), partial(_histograms, _FINE)
        super().__init__(
            Objective("miou", True, _overlaps, mean_overlap),
            Objective("f1", True, _overlaps, _mean_f1),
            Objective("map", True, coarse, self._mean_average_precision, streamed=fine),
            Objective("ece", False, _confidences, calibration_error),
            Objective("brier", False, _squares, mean),
            Objective("nll", False, _log_losses, mean),
            per_class=(Objective("iou_per_class", True, _overlaps, class_overlaps),),
        )

    def _mean_average_precision(self, sums: Tensor) -> Tensor:
        """Return the mean average precision over the classes that occur in the targets."""
        positives, negatives = sums.reshape(*sums.shape[:-1], self._classes, 2, -1).flip(-1).unbind(-2)
        hits = positives.cumsum(-1)
        precision = hits / (hits + negatives.cumsum(-1)).clamp(min=1)
        return ratio((positives * precision).sum(-1), hits[..., -1]).nanmean(-1)


def _known(image: ScoredImage) -> tuple[Tensor, Tensor]:
    """Return which pixels of each class are positive, and which are known, bool ``(K, N)``."""
    masks = image.target.flatten(1).long()
    valid = masks != IGNORED
    wrong = valid & (masks != 0) & (masks != 1)
    if wrong.any():
        raise DataError(
            f"a mask holds {int(masks[wrong][0])}; masks must be 0, 1, or {IGNORED} where unknown: convert other "
            "values with data.label_map"
        )
    return masks == 1, valid


def _overlaps(image: ScoredImage) -> Tensor:
    """Return hits and unions of each class, ``(M, 2K)``."""
    positive, valid = image.once(_known)
    predicted = (image.maps.flatten(2) >= 0.5) & valid
    hits, unions = (predicted & positive).sum(2), (predicted | positive).sum(2)
    return torch.cat([hits, unions], dim=1).double()


def _mean_f1(sums: Tensor) -> Tensor:
    hits, unions = sums.chunk(2, dim=-1)
    return ratio(2 * hits, unions + hits).nanmean(-1)


def _values(image: ScoredImage) -> list[tuple[Tensor, Tensor]]:
    """Return, for each class, the known probabilities ``(M, n)`` and which are positive, bool ``(n,)``."""
    values = []
    for channel, (positive, valid) in enumerate(zip(*image.once(_known), strict=True)):
        pixels = true_indices(valid)
        values.append((columns(image.maps[:, channel].flatten(1), pixels), positive.index_select(0, pixels)))
    return values


def _histograms(bins: _Bins, image: ScoredImage) -> Tensor:
    """Return the numbers of positive, then of negative pixels of each class in each bin, ``(M, K * 2 * bins)``."""
    counts = []
    for p, positive in image.once(_values):
        log_odds = torch.logit(p.to(bins.dtype)).clamp_(bins.lowest, bins.highest)
        share = (log_odds - bins.lowest) / (bins.highest - bins.lowest)
        cell = (share * (bins.cells - 1)).round().long()
        counts.append(totals_per_row(cell + bins.cells * ~positive, 2 * bins.cells))
    return torch.cat(counts, dim=1)


def _confidences(image: ScoredImage) -> Tensor:
    return torch.stack([confidence_bins(p, positive) for p, positive in image.once(_values)]).sum(0)


def _squares(image: ScoredImage) -> Tensor:
    squares = [(p - positive.float()).double().square().sum(1) for p, positive in image.once(_values)]
    return counted(torch.stack(squares).sum(0), sum(len(positive) for _, positive in image.once(_values)))


def _log_losses(image: ScoredImage) -> Tensor:
    losses = [log_losses(torch.where(positive, p, 1 - p)) for p, positive in image.once(_values)]
    return torch.stack(losses).sum(0)
