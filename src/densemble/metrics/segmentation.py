"""Segmentation metrics from one confusion matrix over the whole set, and calibration over all its pixels."""

import torch
from torch import Tensor

from densemble.errors import DataError
from densemble.metrics.base import MetricValues
from densemble.metrics.reliability import BINS, CategoricalScores, Reliability, where


class SegmentationMetrics:
    """``miou pixel_accuracy ece classwise_ece brier nll iou_per_class``; ignored pixels count nowhere.

    ``miou`` is the mean over classes that occur in the targets or the predictions; ``ece`` is the expected
    calibration error with equal-width bins of the confidence (Guo et al. 2017), the others are those of
    :class:`CategoricalScores`. A class whose number is the ignored label enters no mean over classes; its predictions
    on scored pixels count as errors of the classes that are there, as in torchmetrics.

    Attributes:
        reliability: confidence and accuracy, bin by bin.

    Args:
        classes: K.
        ignore_index: label that is not scored, a class or none of 0..K-1.
        bins: of the confidence.
    """

    def __init__(self, classes: int, ignore_index: int, bins: int = BINS) -> None:
        self._classes = classes
        self._ignore = ignore_index
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.reliability = Reliability(bins)
        self._scored = torch.arange(classes) != ignore_index
        self._scores = CategoricalScores(self._scored, bins)

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: probabilities ``(K, H, W)``, labels ``(H, W)``.

        Raises:
            DataError: a label outside 0..K-1 that is not the ignored one.
        """
        flat = target.flatten()
        pixels = where(flat != self._ignore)
        labels = flat.index_select(0, pixels).long()
        wrong = (labels < 0) | (labels >= self._classes)
        if wrong.any():
            raise DataError(
                f"label {int(labels[wrong][0])} is outside the {self._classes} classes; "
                "name more classes or ignore it with data.ignore_index"
            )
        probabilities = prediction.float().flatten(1)
        self._scores.update(probabilities, pixels, labels)
        confidence, predicted = (best.index_select(0, pixels) for best in probabilities.max(0))
        pairs = torch.bincount(labels * self._classes + predicted, minlength=self._classes**2)
        self._confusion += pairs.view(self._classes, self._classes)
        self.reliability.update(confidence, predicted == labels)

    def compute(self) -> MetricValues:
        """The metrics; an absent or ignored class has IoU ``None``."""
        hit = self._confusion.diagonal().double()
        union = (self._confusion.sum(0) + self._confusion.sum(1)).double() - hit
        total = max(int(self._confusion.sum()), 1)
        counts = zip(hit, union, self._scored, strict=True)
        per_class = [float(h / u) if u > 0 and scored else None for h, u, scored in counts]
        present = [value for value in per_class if value is not None]
        return {
            "miou": sum(present) / len(present) if present else 0.0,
            "pixel_accuracy": float(hit.sum()) / total,
            "ece": self.reliability.ece(),
            **self._scores.compute(),
            "iou_per_class": list(per_class),
        }
