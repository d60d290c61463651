"""Confusion matrix, precision and recall: values by hand, and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from densemble.errors import DataError
from densemble.metrics.class_counts import ClassCounts


def probabilities(labels: list[list[int]], classes: int) -> torch.Tensor:
    """Maps ``(K, H, W)`` whose most probable classes are ``labels``."""
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).permute(2, 0, 1).float() * 0.8 + 0.1


def test_values_by_hand() -> None:
    counts = ClassCounts(4)
    counts.update(probabilities([[0, 0, 1], [1, 2, 2]], 4), torch.tensor([[0, 1, 1], [1, 1, 255]]))
    counts.update(probabilities([[2, 0]], 4), torch.tensor([[2, 0]]))
    assert counts.confusion is not None
    assert counts.confusion.tolist() == [[2, 0, 0, 0], [1, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(counts.precision(), [2 / 3, 1, 1 / 2, np.nan])
    np.testing.assert_allclose(counts.recall(), [1, 1 / 2, 1, np.nan])


def test_an_ignored_class_of_the_model() -> None:
    """Pixels of the class 1 are not counted; other pixels that are predicted as it are errors."""
    counts = ClassCounts(2, ignored=1)
    counts.update(probabilities([[0, 1, 1]], 2), torch.tensor([[0, 0, 1]]))
    assert counts.confusion is not None and counts.confusion.tolist() == [[1, 1], [0, 0]]
    assert counts.recall()[0] == 0.5 and counts.recall()[1].isnan()


def test_labels_equal_scikit_learn() -> None:
    random = np.random.default_rng(0)
    counts, targets, predictions = ClassCounts(5), [], []
    for _ in range(3):
        maps = torch.from_numpy(random.random((5, 9, 11)))
        target = random.choice([0, 1, 2, 3, 4, 255], (9, 11))
        counts.update(maps, torch.from_numpy(target))
        targets.append(target[target != 255])
        predictions.append(maps.argmax(0).numpy()[target != 255])
    true, predicted = np.concatenate(targets), np.concatenate(predictions)
    assert counts.confusion is not None
    np.testing.assert_array_equal(counts.confusion, confusion_matrix(true, predicted, labels=range(5)))
    precision, recall, _, support = precision_recall_fscore_support(true, predicted, labels=range(5))
    np.testing.assert_allclose(counts.precision(), precision)
    np.testing.assert_allclose(counts.recall(), recall)
    np.testing.assert_array_equal(counts.actual, support)


def test_masks_equal_scikit_learn() -> None:
    random = np.random.default_rng(1)
    counts, maps = ClassCounts(3, "masks"), torch.from_numpy(random.random((3, 8, 8)))
    target = torch.from_numpy(random.choice([0, 1, 255], (3, 8, 8)))
    counts.update(maps, target)
    assert counts.confusion is None
    for k in range(3):
        known = target[k] != 255
        precision, recall, _, _ = precision_recall_fscore_support(
            target[k][known], maps[k][known] >= 0.5, average="binary"
        )
        assert float(counts.precision()[k]) == pytest.approx(precision)
        assert float(counts.recall()[k]) == pytest.approx(recall)


def test_a_label_outside_the_classes_is_an_error() -> None:
    with pytest.raises(DataError, match="label 7 is outside the 2 classes"):
        ClassCounts(2).update(probabilities([[0, 1]], 2), torch.tensor([[0, 7]]))
