"""Objectives of multilabel segmentation; ignored pixels count nowhere."""

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.metrics.multilabel import IGNORED
from densemble.tasks.objectives.base import SMALLEST, Objective, counted, mean, ratio, totals_per_row
from densemble.tasks.objectives.segmentation import calibration_error, calibration_gaps, mean_overlap

_BINS = 256
_LOWEST, _HIGHEST = -17.0, 9.0
"""Bins are of equal width in log-odds; 16-bit probabilities lie between these."""


def multilabel_objectives() -> tuple[Objective, ...]:
    """``miou f1 map ece brier nll``; see :class:`densemble.metrics.MultilabelMetrics`.

    For ``map`` probabilities whose log-odds differ by less than 0.1 count as equal, which keeps it within about 0.01
    of the exact value.
    """
    return (
        Objective("miou", True, _overlaps, mean_overlap),
        Objective("f1", True, _overlaps, _mean_f1),
        Objective("map", True, _histograms, _mean_average_precision),
        Objective("ece", False, _gaps, calibration_error),
        Objective("brier", False, _squares, mean),
        Objective("nll", False, _log_losses, mean),
    )


def _known(target: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels of each class are positive, and which count, ``(K, N)``."""
    masks = target.flatten(1).long()
    valid = masks != IGNORED
    wrong = valid & (masks != 0) & (masks != 1)
    if wrong.any():
        raise DataError(
            f"a mask holds {int(masks[wrong][0])}; masks are 0 or 1, {IGNORED} where unknown: map others with "
            "data.label_map"
        )
    return masks == 1, valid


def _overlaps(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    """Hits and unions of each class, ``(M, 2K)``."""
    positive, valid = _known(target)
    found = (maps.flatten(2) >= 0.5) & valid
    hits, unions = (found & positive).sum(2), (found | positive).sum(2)
    return torch.cat([hits, unions], dim=1).double()


def _mean_f1(sums: Tensor) -> Tensor:
    hits, unions = sums.chunk(2, dim=-1)
    return ratio(2 * hits, unions + hits).nanmean(-1)


def _histograms(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    """Positive, then negative pixels of each class in each bin, ``(M, 2 K bins)``."""
    positive, valid = _known(target)
    share = (torch.logit(maps.flatten(2)).clamp(_LOWEST, _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
    place = (share * (_BINS - 1)).round().long()
    counts = [
        totals_per_row(place[:, number, mask[number]], _BINS)
        for mask in (positive, valid & ~positive)
        for number in range(len(positive))
    ]
    return torch.cat(counts, dim=1)


def _mean_average_precision(sums: Tensor) -> Tensor:
    """Sum of precision times gain of recall over all thresholds, a mean over the classes that occur in the targets."""
    halves = sums.chunk(2, dim=-1)
    positives, negatives = (half.reshape(*half.shape[:-1], -1, _BINS).flip(-1) for half in halves)
    hits = positives.cumsum(-1)
    precision = hits / (hits + negatives.cumsum(-1)).clamp(min=1)
    return ratio((positives * precision).sum(-1), hits[..., -1]).nanmean(-1)


def _gaps(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    positive, valid = _known(target)
    return calibration_gaps(maps.flatten(2)[:, valid], positive[valid])


def _squares(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    positive, valid = _known(target)
    return counted((maps.flatten(2) - positive.float())[:, valid].double().square().sum(1), int(valid.sum()))


def _log_losses(maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    positive, valid = _known(target)
    values = maps.flatten(2)
    chosen = torch.where(positive, values, 1 - values)[:, valid].clamp(min=SMALLEST)
    return counted(-chosen.double().log().sum(1), int(valid.sum()))
