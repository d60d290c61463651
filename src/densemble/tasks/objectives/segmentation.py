"""Objectives of segmentation; ignored pixels count nowhere."""

from functools import partial

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.metrics.reliability import BINS, find_bins
from densemble.tasks.objectives.base import SMALLEST, Objective, counted, mean, ratio, totals_per_row

EDGES = torch.linspace(0, 1, BINS + 1)
"""Of the bins of a probability; there is one more bin, for exactly 1."""


def segmentation_objectives(ignore_index: int) -> tuple[Objective, ...]:
    """``miou pixel_accuracy ece classwise_ece brier nll``; see :class:`densemble.metrics.SegmentationMetrics`."""
    return (
        Objective("miou", True, partial(_overlaps, ignore_index), mean_overlap),
        Objective("pixel_accuracy", True, partial(_hits, ignore_index), mean),
        Objective("ece", False, partial(_gaps, ignore_index), calibration_error),
        Objective("classwise_ece", False, partial(_gaps_of_classes, ignore_index), _classwise_error),
        Objective("brier", False, partial(_squares, ignore_index), mean),
        Objective("nll", False, partial(_log_losses, ignore_index), mean),
    )


def class_overlaps(sums: Tensor) -> Tensor:
    """IoU of each class from hits and unions ``(..., 2K)`` -> ``(..., K)``, NaN for a class that occurs nowhere."""
    hits, unions = sums.chunk(2, dim=-1)
    return ratio(hits, unions)


def mean_overlap(sums: Tensor) -> Tensor:
    """Mean IoU over the classes that occur, from hits and unions ``(..., 2K)``."""
    return class_overlaps(sums).nanmean(-1)


def _known(target: Tensor, classes: int, ignore: int) -> tuple[Tensor, Tensor]:
    """Labels ``(N,)`` and which of them count."""
    labels = target.flatten().long()
    valid = labels != ignore
    wrong = valid & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise DataError(
            f"label {int(labels[wrong][0])} is outside the {classes} classes; name more classes or ignore it with "
            "data.ignore_index"
        )
    return labels, valid


def _decided(maps: Tensor, target: Tensor, ignore: int) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence and class ``(M, N)`` of the pixels that count, and their labels ``(N,)``."""
    labels, valid = _known(target, maps.shape[1], ignore)
    # Over all pixels first: picking them out of K channels would copy everything.
    confidence, predicted = maps.flatten(2).max(1)
    return confidence[:, valid], predicted[:, valid], labels[valid]


def _overlaps(ignore: int, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    """Hits and unions of each class, ``(M, 2K)``."""
    classes = maps.shape[1]
    _, predicted, labels = _decided(maps, target, ignore)
    hits = totals_per_row(predicted.where(predicted == labels, classes), classes + 1)[:, :-1]
    found = totals_per_row(predicted, classes)
    unions = found + torch.bincount(labels, minlength=classes) - hits
    unions[:, torch.arange(classes) == ignore] = 0  # the ignored class occurs nowhere
    return torch.cat([hits, unions], dim=1)


def _hits(ignore: int, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    _, predicted, labels = _decided(maps, target, ignore)
    return counted((predicted == labels).sum(1), len(labels))


def calibration_gaps(confidence: Tensor, right: Tensor) -> Tensor:
    """How far hits are above the confidence in each of its bins, and the number of values; for `calibration_error`.

    Args:
        confidence: ``(M, N)``.
        right: bool, broadcastable to it.

    Returns:
        ``(M, bins + 2)``.
    """
    gaps = totals_per_row(_bins(confidence), len(EDGES), right.double() - confidence.double())
    return torch.cat([gaps, gaps.new_full((len(gaps), 1), confidence.shape[1])], dim=1)


def calibration_error(sums: Tensor) -> Tensor:
    """Expected calibration error from the gaps of all bins and the number of values."""
    return ratio(sums[..., :-1].abs().sum(-1), sums[..., -1])


def _gaps(ignore: int, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    confidence, predicted, labels = _decided(maps, target, ignore)
    return calibration_gaps(confidence, predicted == labels)


def _gaps_of_classes(ignore: int, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    """The same for the probability of each scored class, and the number of pixels, ``(M, K (bins + 1) + 1)``."""
    labels, valid = _known(target, maps.shape[1], ignore)
    p = maps.flatten(2)[:, :, valid]
    gaps = [
        totals_per_row(_bins(own), len(EDGES), (labels[valid] == number).double() - own.double())
        for number, own in enumerate(p.unbind(1))
        if number != ignore
    ]
    return torch.cat([*gaps, gaps[0].new_full((len(maps), 1), p.shape[2])], dim=1)


def _classwise_error(sums: Tensor) -> Tensor:
    classes = (sums.shape[-1] - 1) // len(EDGES)
    return calibration_error(sums) / classes


def _of_the_truth(maps: Tensor, target: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """Probability of the true class ``(M, N)`` of the pixels that count, and which of all pixels those are."""
    labels, valid = _known(target, maps.shape[1], ignore)
    chosen = maps.flatten(2).gather(1, labels.where(valid, 0).expand(len(maps), 1, -1))[:, 0]
    return chosen[:, valid].double(), valid


def _log_losses(ignore: int, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    chosen, _ = _of_the_truth(maps, target, ignore)
    return counted(-chosen.clamp(min=SMALLEST).log().sum(1), chosen.shape[1])


def _squares(ignore: int, maps: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
    chosen, valid = _of_the_truth(maps, target, ignore)
    squares = maps.flatten(2).square().sum(1)[:, valid].double()
    return counted((squares - 2 * chosen + 1).sum(1), chosen.shape[1])


def _bins(probabilities: Tensor) -> Tensor:
    return find_bins(probabilities.flatten(), EDGES).view_as(probabilities)
