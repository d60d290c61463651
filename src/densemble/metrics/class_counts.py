"""Counts of target and predicted classes over all pixels of all images: confusion matrix, precision and recall."""

from typing import Literal

import torch
from torch import Tensor

from densemble.metrics.metric import ratio
from densemble.metrics.multilabel import IGNORED
from densemble.metrics.segmentation import require_labels

Form = Literal["labels", "masks"]
"""Form of the targets: labels ``(H, W)``, or masks ``(K, H, W)`` of 0 and 1."""


class ClassCounts:
    """Numbers of pixels by target class and predicted class, added image by image.

    Args:
        classes: K.
        form: ``labels``: one class per pixel, predicted is the most probable one; ``masks``: independent classes,
            predicted where the probability is at least 0.5.
        ignored: label that is not counted; masks have 255.

    Attributes:
        hits: pixels of each class that are predicted as it, float64 ``(K,)``.
        predicted: pixels predicted as each class, ``(K,)``.
        actual: pixels of each class in the targets, ``(K,)``.
        confusion: pixels by target class (rows) and predicted class (columns), ``(K, K)``; ``None`` for masks.
    """

    def __init__(self, classes: int, form: Form = "labels", ignored: int = IGNORED) -> None:
        self._classes, self._form, self._ignored = classes, form, ignored
        self.hits, self.predicted, self.actual = (torch.zeros(classes, dtype=torch.float64) for _ in range(3))
        self.confusion = torch.zeros(classes, classes, dtype=torch.float64) if form == "labels" else None

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add one image.

        Args:
            prediction: probabilities ``(K, H, W)``.
            target: labels ``(H, W)`` or masks ``(K, H, W)``.

        Raises:
            DataError: a label lies outside 0..K-1 and is not ignored.
        """
        prediction, target = prediction.cpu(), target.cpu()
        if self.confusion is not None:
            self._add_labels(prediction.argmax(0).flatten(), target.long().flatten())
            return
        known = target.long() != self._ignored
        predicted, actual = (prediction >= 0.5) & known, (target == 1) & known
        self.hits += (predicted & actual).sum((1, 2))
        self.predicted += predicted.sum((1, 2))
        self.actual += actual.sum((1, 2))

    def _add_labels(self, predicted: Tensor, target: Tensor) -> None:
        assert self.confusion is not None
        known = target != self._ignored
        labels = target[known]
        require_labels(labels, self._classes)
        cells = torch.bincount(labels * self._classes + predicted[known], minlength=self._classes**2)
        counts = cells.view(self._classes, self._classes).double()
        self.confusion += counts
        self.hits += counts.diagonal()
        self.predicted += counts.sum(0)
        self.actual += counts.sum(1)

    def precision(self) -> Tensor:
        """Share of the pixels predicted as each class that belong to it; NaN for classes that are not predicted."""
        return ratio(self.hits, self.predicted)

    def recall(self) -> Tensor:
        """Share of the pixels of each class that are predicted as it; NaN for classes that do not occur."""
        return ratio(self.hits, self.actual)
