"""Segmentation metrics from one confusion matrix over the whole set, and calibration over all its pixels."""

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.metrics.base import MetricValues


class SegmentationMetrics:
    """``miou pixel_accuracy iou_per_class ece``; ignored pixels count nowhere.

    ``miou`` is the mean over classes that occur in the targets or the predictions; ``ece`` is the expected
    calibration error with equal-width bins of the confidence (Guo et al. 2017).

    Args:
        classes: K.
        ignore_index: label that is not scored.
        bins: of the confidence.
    """

    def __init__(self, classes: int, ignore_index: int, bins: int = 15) -> None:
        self._classes = classes
        self._ignore = ignore_index
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self._edges = torch.linspace(0, 1, bins + 1)
        self._in_bin = torch.zeros(bins, dtype=torch.float64)
        self._right = torch.zeros(bins, dtype=torch.float64)
        self._confidence = torch.zeros(bins, dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: probabilities ``(K, H, W)``, labels ``(H, W)``.

        Raises:
            DataError: a label outside 0..K-1 that is not the ignored one.
        """
        labels = target.long()
        valid = labels != self._ignore
        wrong = valid & ((labels < 0) | (labels >= self._classes))
        if wrong.any():
            raise DataError(
                f"label {int(labels[wrong][0])} is outside the {self._classes} classes; "
                "name more classes or ignore it with data.ignore_index"
            )
        confidence, predicted = prediction.float().max(0)
        labels, predicted, confidence = labels[valid], predicted[valid], confidence[valid]
        pairs = torch.bincount(labels * self._classes + predicted, minlength=self._classes**2)
        self._confusion += pairs.view(self._classes, self._classes)
        bins = len(self._in_bin)
        place = (torch.bucketize(confidence, self._edges, right=True) - 1).clamp(0, bins - 1)
        self._in_bin += torch.bincount(place, minlength=bins)
        self._right += torch.bincount(place, weights=(predicted == labels).double(), minlength=bins)
        self._confidence += torch.bincount(place, weights=confidence.double(), minlength=bins)

    def compute(self) -> MetricValues:
        """The metrics; an absent class has IoU ``None``."""
        hit = self._confusion.diagonal().double()
        union = (self._confusion.sum(0) + self._confusion.sum(1)).double() - hit
        total = max(int(self._confusion.sum()), 1)
        per_class = [float(h / u) if u > 0 else None for h, u in zip(hit, union, strict=True)]
        present = [value for value in per_class if value is not None]
        gap = (self._right - self._confidence).abs().sum() / total
        return {
            "miou": sum(present) / len(present) if present else 0.0,
            "pixel_accuracy": float(hit.sum()) / total,
            "ece": float(gap),
            "iou_per_class": list(per_class),
        }
