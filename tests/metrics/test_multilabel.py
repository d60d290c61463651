"""Multilabel metrics against torchmetrics, scikit-learn and values computed by hand."""

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics.classification import MultilabelF1Score, MultilabelJaccardIndex

from densemble.errors import DataError
from densemble.metrics import MultilabelMetrics

K = 3


def image(height: int, sharpness: float) -> tuple[Tensor, Tensor]:
    target = (torch.rand(K, height, 30) < torch.tensor([0.5, 0.1, 0.02])[:, None, None]).long()
    logits = sharpness * (2 * target - 1 + 1.5 * torch.randn(K, height, 30)) - sharpness
    target[torch.rand(K, height, 30) < 0.1] = 255
    return torch.sigmoid(logits), target


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 6.0], ids=["vague", "usual", "certain"])
def test_agrees_with_torchmetrics_and_scikit_learn(sharpness: float) -> None:
    metric = MultilabelMetrics(K)
    images = [image(height, sharpness) for height in (20, 7, 45)]
    for probabilities, target in images:
        metric.update(probabilities, target)
    p, t = (torch.cat([pair[i].flatten(1) for pair in images], 1) for i in (0, 1))
    result = metric.compute()
    jaccard = MultilabelJaccardIndex(K, average="none", ignore_index=255)(p[None], t[None])
    f1 = MultilabelF1Score(K, average="macro", ignore_index=255)(p.T, t.T)
    assert result["iou_per_class"] == pytest.approx(jaccard.tolist(), abs=1e-6)
    assert result["miou"] == pytest.approx(float(jaccard.mean()), abs=1e-6)
    assert result["f1"] == pytest.approx(float(f1), abs=1e-6)
    precisions = [average_precision_score(t[k][t[k] < 2], p[k][t[k] < 2]) for k in range(K)]
    assert result["map"] == pytest.approx(sum(precisions) / K, abs=1e-3)


def test_by_hand_with_a_class_that_is_nowhere() -> None:
    metric = MultilabelMetrics(3)
    probabilities = torch.tensor([[[0.9, 0.8, 0.4, 0.1]], [[0.9, 0.1, 0.1, 0.1]], [[0.1, 0.1, 0.1, 0.1]]])
    target = torch.tensor([[[1, 0, 1, 0]], [[255, 1, 0, 0]], [[0, 0, 0, 0]]])
    metric.update(probabilities, target)
    result = metric.compute()
    assert result["iou_per_class"] == [pytest.approx(1 / 3), 0.0, None]
    assert result["miou"] == pytest.approx(1 / 6)
    assert result["f1"] == pytest.approx(1 / 4)
    # first class: ranks 1 and 3 of 4 are right: (1 + 2/3) / 2; second: one right among three equal ones: 1/3
    assert result["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)


def test_certain_probabilities_are_in_the_outer_bins() -> None:
    metric = MultilabelMetrics(1)
    metric.update(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0, 1]]]))
    assert metric.compute()["map"] == 1


def test_nothing_valid_is_none_and_other_values_are_refused() -> None:
    metric = MultilabelMetrics(1)
    metric.update(torch.rand(1, 2, 2), torch.full((1, 2, 2), 255))
    empty = dict.fromkeys(("miou", "f1", "map", "ece", "brier", "nll"))
    assert metric.compute() == {**empty, "iou_per_class": [None]}
    with pytest.raises(DataError, match=r"a mask holds 7.*label_map"):
        metric.update(torch.rand(1, 2, 2), torch.full((1, 2, 2), 7))
