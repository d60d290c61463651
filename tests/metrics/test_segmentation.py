"""Segmentation metrics against torchmetrics and values computed by hand."""

import pytest
import torch
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassJaccardIndex,
)

from densemble.errors import DataError
from densemble.metrics import SegmentationMetrics

K, VOID = 5, 11


def sample(height: int = 20, width: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    probabilities = torch.softmax(3 * torch.randn(K, height, width), 0)
    labels = torch.where(torch.rand(height, width) < 0.5, probabilities.argmax(0), torch.randint(0, K, (height, width)))
    labels[torch.rand(height, width) < 0.15] = VOID
    return probabilities, labels


def test_miou_accuracy_and_ece_agree_with_torchmetrics() -> None:
    ours = SegmentationMetrics(K, VOID)
    jaccard = MulticlassJaccardIndex(K, average="none", ignore_index=VOID)
    calibration = MulticlassCalibrationError(K, n_bins=15, norm="l1", ignore_index=VOID)
    right = total = 0
    for height in (20, 7, 33):  # images of several sizes: one confusion matrix, not a mean over images
        probabilities, labels = sample(height)
        ours.update(probabilities, labels)
        jaccard.update(probabilities[None].argmax(1), labels[None])
        calibration.update(probabilities[None].permute(0, 2, 3, 1).reshape(-1, K), labels.reshape(-1))
        valid = labels != VOID
        right += int((probabilities.argmax(0) == labels)[valid].sum())
        total += int(valid.sum())
    result = ours.compute()
    assert result["iou_per_class"] == pytest.approx(jaccard.compute().tolist(), abs=1e-6)
    assert result["miou"] == pytest.approx(float(jaccard.compute().mean()), abs=1e-6)
    assert result["ece"] == pytest.approx(float(calibration.compute()), abs=1e-5)
    assert result["pixel_accuracy"] == pytest.approx(right / total)


def test_by_hand_with_an_absent_class_and_void() -> None:
    labels = torch.tensor([[0, 0, 1, VOID]])
    predicted = torch.tensor([[0, 1, 1, 2]])
    probabilities = torch.nn.functional.one_hot(predicted, 3).permute(2, 0, 1).float()
    metric = SegmentationMetrics(3, VOID)
    metric.update(probabilities, labels)
    result = metric.compute()
    assert result["iou_per_class"] == [0.5, 0.5, None]  # class 2 was predicted on void only: it does not occur
    assert result["miou"] == 0.5
    assert result["pixel_accuracy"] == pytest.approx(2 / 3)
    assert result["ece"] == pytest.approx(1 / 3)  # always certain, right two times of three


@pytest.mark.parametrize("ignored", [0, 2, K - 1])
def test_an_ignored_class_is_left_out_of_means_over_classes(ignored: int) -> None:
    ours = SegmentationMetrics(K, ignored)
    jaccard = MulticlassJaccardIndex(K, average="macro", ignore_index=ignored)
    accuracy = MulticlassAccuracy(K, average="micro", ignore_index=ignored)
    gaps = [BinaryCalibrationError(n_bins=15, norm="l1") for _ in range(K)]
    for _ in range(2):
        probabilities, labels = sample()
        labels[labels == VOID] = ignored
        ours.update(probabilities, labels)
        jaccard.update(probabilities[None].argmax(1), labels[None])
        accuracy.update(probabilities[None].argmax(1), labels[None])
        known = labels != ignored
        for number, gap in enumerate(gaps):
            gap.update(probabilities[number][known], (labels[known] == number).int())
    result = ours.compute()
    assert result["miou"] == pytest.approx(float(jaccard.compute()), abs=1e-6)
    assert result["pixel_accuracy"] == pytest.approx(float(accuracy.compute()), abs=1e-6)
    assert [value is None for value in result["iou_per_class"]] == [number == ignored for number in range(K)]  # type: ignore[union-attr]
    expected = [float(gap.compute()) for number, gap in enumerate(gaps) if number != ignored]
    assert result["classwise_ece"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_nothing_scored_is_none() -> None:
    metric = SegmentationMetrics(2, VOID)
    metric.update(torch.rand(2, 2, 2), torch.full((2, 2), VOID))
    empty = dict.fromkeys(("miou", "pixel_accuracy", "ece", "classwise_ece", "brier", "nll"))
    assert metric.compute() == {**empty, "iou_per_class": [None, None]}


def test_a_label_outside_the_classes_is_an_error() -> None:
    with pytest.raises(DataError, match=r"label 7 is outside the 5 classes.*ignore_index"):
        SegmentationMetrics(K, VOID).update(torch.rand(K, 2, 2), torch.full((2, 2), 7))
