"""Baselines against values computed by hand."""

import pytest
import torch

from densemble.errors import DataError
from densemble.tasks import (
    HeatmapTask,
    ImageTask,
    MultilabelTask,
    RegressionTask,
    SaliencyTask,
    SegmentationTask,
    Task,
)
from densemble.tasks.baseline import BASELINES, baseline_names, mean_map

NAN = float("nan")


def test_mean_map_of_labels_is_the_frequency_of_each_class() -> None:
    task = SegmentationTask(("a", "b"), 255)
    targets = [torch.tensor([[0, 1, 255]]), torch.tensor([[0, 0, 255]]), torch.tensor([[255, 1, 255]])]
    result = mean_map(task, iter(targets), (1, 3))
    # the last pixel is never valid: 3 of all 5 valid pixels are of the first class
    torch.testing.assert_close(result, torch.tensor([[[1, 1 / 3, 3 / 5]], [[0, 2 / 3, 2 / 5]]]))


def test_mean_map_of_values_leaves_invalid_ones_out() -> None:
    targets = [torch.tensor([[2.0, NAN, 0.0]]), torch.tensor([[4.0, 6.0, NAN]])]
    torch.testing.assert_close(mean_map(RegressionTask(), targets, (1, 3)), torch.tensor([[[3.0, 6.0, 4.0]]]))


def test_channels_have_their_own_valid_pixels() -> None:
    targets = [torch.tensor([[[1, 255]], [[255, 255]]], dtype=torch.uint8)]
    assert mean_map(MultilabelTask(("a", "b")), targets, (1, 2)).tolist() == [[[1, 1]], [[0, 0]]]
    pixels = [torch.tensor([[[0.2, NAN]]]), torch.tensor([[[0.4, NAN]]])]
    torch.testing.assert_close(mean_map(ImageTask(1), pixels, (1, 2)), torch.tensor([[[0.3, 0.3]]]))


def test_majority_is_the_most_frequent_class_everywhere() -> None:
    mean = torch.tensor([[[0.9, 0.2, 0.1]], [[0.1, 0.7, 0.5]], [[0.0, 0.1, 0.4]]])
    assert BASELINES["majority class"].predict(mean).tolist() == [[[0, 0, 0]], [[1, 1, 1]], [[0, 0, 0]]]
    assert BASELINES["mean map"].predict(mean).equal(mean)


@pytest.mark.parametrize("task", [SaliencyTask(), HeatmapTask(("a",)), RegressionTask(), MultilabelTask(("a",))])
def test_only_exclusive_classes_have_a_majority(task: Task) -> None:
    assert baseline_names(task) == ("mean map",)
    assert baseline_names(SegmentationTask(("a", "b"))) == ("mean map", "majority class")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([torch.ones(2, 3), torch.ones(3, 2)], "3x2 cannot be added to a mean map of 2x3"),
        ([torch.zeros(2, 3)], "valid pixel"),
        ([], "valid pixel"),
    ],
)
def test_targets_without_a_mean_are_refused(targets: list[torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mean_map(RegressionTask(), targets, (2, 3))
