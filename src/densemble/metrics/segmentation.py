"""Segmentation metrics: overlap and calibration over all pixels of all images; ignored pixels are not counted."""

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
from densemble.metrics.reliability import BINS, calibration_error, confidence_bins, find_bins, log_losses

_EDGES = torch.linspace(0, 1, BINS + 1)
_CELLS = BINS + 1
_FIRST_EDGE = float(_EDGES[1])


class SegmentationMetrics(Metric):
    """``miou pixel_accuracy ece classwise_ece brier nll iou_per_class`` of probabilities and labels ``(H, W)``.

    ``miou`` is the mean over the classes that occur in the targets or the predictions. ``ece`` is the expected
    calibration error with equal-width bins of the confidence (Guo et al. 2017); ``classwise_ece`` is the mean over the
    scored classes of the same error of p_k against 1[y = k] (Nixon et al. 2019; Kull et al. 2019). ``brier`` is a sum
    over the classes, 0 to 2 (Brier 1950); ``nll`` is in nats per pixel. If the ignored label is the number of a class,
    that class is left out of all means over classes. Predictions of it on scored pixels count as errors of the target
    classes, as in torchmetrics.

    :meth:`update` and all statistics raise :class:`DataError` if a label lies outside 0..K-1 and is not ignored.

    Args:
        classes: K.
        ignore_index: label that is not scored; it may be a class of 0..K-1 or not.
    """

    def __init__(self, classes: int, ignore_index: int) -> None:
        self._classes, self._ignore = classes, ignore_index
        self._scored = torch.arange(classes) != ignore_index
        super().__init__(
            Objective("miou", True, self._overlaps, mean_overlap),
            Objective("pixel_accuracy", True, self._hits, mean),
            Objective("ece", False, self._confidences, calibration_error),
            Objective("classwise_ece", False, self._gaps, self._classwise_error),
            Objective("brier", False, self._squares, mean),
            Objective("nll", False, self._log_losses, mean),
            per_class=(Objective("iou_per_class", True, self._overlaps, class_overlaps),),
        )

    def _known(self, image: ScoredImage) -> tuple[Tensor, Tensor]:
        """Return the indices of the scored pixels, and their labels, ``(N,)``."""
        target = image.target.flatten()
        pixels = true_indices(target != self._ignore)
        labels = target.index_select(0, pixels).long()
        require_labels(labels, self._classes)
        return pixels, labels

    def _decisions(self, image: ScoredImage) -> tuple[Tensor, Tensor]:
        """Return confidence and predicted class ``(M, N)`` of the scored pixels."""
        pixels, _ = image.once(self._known)
        # The maximum is taken over all pixels first: selecting pixels from K channels would copy everything.
        confidence, predicted = image.maps.flatten(2).max(1)
        return columns(confidence, pixels), columns(predicted, pixels)

    def _right(self, image: ScoredImage) -> Tensor:
        (_, predicted), (_, labels) = image.once(self._decisions), image.once(self._known)
        return predicted == labels

    def _overlaps(self, image: ScoredImage) -> Tensor:
        """Return hits and unions of each class, ``(M, 2K)``; both are 0 for the ignored class."""
        (_, predicted), (_, labels) = image.once(self._decisions), image.once(self._known)
        cells = torch.add(predicted, image.once(self._right), alpha=self._classes)
        wrong, hits = totals_per_row(cells, 2 * self._classes).chunk(2, dim=1)
        unions = (wrong + torch.bincount(labels, minlength=self._classes)) * self._scored
        return torch.cat([hits, unions], dim=1)

    def _hits(self, image: ScoredImage) -> Tensor:
        right = image.once(self._right)
        return counted(right.sum(1), right.shape[1])

    def _confidences(self, image: ScoredImage) -> Tensor:
        confidence, _ = image.once(self._decisions)
        return confidence_bins(confidence, image.once(self._right))

    def _label_probabilities(self, image: ScoredImage) -> Tensor:
        """Return the probability of the labelled class ``(M, N)`` of the scored pixels."""
        pixels, labels = image.once(self._known)
        values = image.maps.flatten(1)
        indices = labels * (values.shape[1] // self._classes) + pixels
        return values.gather(1, indices.expand(values.shape[0], -1))

    def _log_losses(self, image: ScoredImage) -> Tensor:
        return log_losses(image.once(self._label_probabilities))

    def _squares(self, image: ScoredImage) -> Tensor:
        pixels, _ = image.once(self._known)
        # The mean of many pixels needs float64: selection distinguishes scores that differ by 1e-7.
        squares = columns(image.maps.flatten(2).square().sum(1), pixels).sum(1, dtype=torch.float64)
        label_sum = image.once(self._label_probabilities).sum(1, dtype=torch.float64)
        return counted(squares - 2 * label_sum + pixels.shape[0], pixels.shape[0])

    def _gaps(self, image: ScoredImage) -> Tensor:
        """Return probabilities minus occurrences per bin of each scored class, and the number of pixels, ``(M, S)``."""
        pixels, labels = image.once(self._known)
        cells = labels * _CELLS + find_bins(image.once(self._label_probabilities), _EDGES)
        hits = totals_per_row(cells, self._classes * _CELLS).view(-1, self._classes, _CELLS)
        sums = _sums_of_bins(_zero_unscored(image.maps.flatten(2), pixels))
        gaps = ((sums - hits) * self._scored[:, None]).flatten(1)
        return torch.cat([gaps, gaps.new_full((gaps.shape[0], 1), pixels.shape[0])], dim=1)

    def _classwise_error(self, sums: Tensor) -> Tensor:
        return ratio(sums[..., :-1].abs().sum(-1), sums[..., -1]) / int(self._scored.sum())


def require_labels(labels: Tensor, classes: int) -> None:
    """Raise a DataError if a label lies outside 0..``classes`` - 1."""
    if not labels.numel():
        return
    low, high = (int(label) for label in labels.aminmax())
    if low < 0 or high >= classes:
        wrong = (labels < 0) | (labels >= classes)
        raise DataError(
            f"label {int(labels[wrong][0])} is outside the {classes} classes; "
            "name more classes or ignore it with data.ignore_index"
        )


def class_overlaps(sums: Tensor) -> Tensor:
    """Return the IoU of each class from hits and unions ``(..., 2K)`` -> ``(..., K)``; NaN for absent classes."""
    hits, unions = sums.chunk(2, dim=-1)
    return ratio(hits, unions)


def mean_overlap(sums: Tensor) -> Tensor:
    """Return the mean IoU over the classes that occur, from hits and unions ``(..., 2K)``."""
    return class_overlaps(sums).nanmean(-1)


def _zero_unscored(probabilities: Tensor, pixels: Tensor) -> Tensor:
    """Set probabilities ``(M, K, N)`` of pixels that are not scored to 0; removing these pixels would be slower."""
    if pixels.shape[0] == probabilities.shape[2]:
        return probabilities
    left_out = torch.ones(probabilities.shape[2], dtype=torch.bool).index_fill_(0, pixels, False)
    return probabilities.masked_fill(left_out, 0)


def _sums_of_bins(probabilities: Tensor) -> Tensor:
    """Sum the probabilities ``(M, K, N)`` in every bin of every class, float64 ``(M, K, bins + 1)``.

    Most probabilities of most pixels are in the lowest bin, so its sum is computed as the total minus the other bins.
    """
    candidates, classes, pixels = probabilities.shape
    flat, rows = probabilities.flatten(), candidates * classes
    above = true_indices(flat >= _FIRST_EDGE)
    values = flat.index_select(0, above)
    per_row = torch.searchsorted(above, torch.arange(rows + 1) * pixels).diff()
    cell = torch.arange(0, rows * _CELLS, _CELLS).repeat_interleave(per_row).add_(find_bins(values, _EDGES))
    sums = torch.bincount(cell, weights=values.double(), minlength=rows * _CELLS).double()  # integer without values
    sums = sums.view(candidates, classes, _CELLS)
    sums[..., 0] = probabilities.sum(2).double() - sums.sum(2)
    return sums
