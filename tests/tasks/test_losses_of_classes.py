"""Losses of labels and masks against torch, torchvision, loops and the definition of the Lovász extension."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from densemble.tasks import MultilabelTask, SegmentationTask, balanced_weights

VOID, K = 11, 3
WEIGHTS = (0.5, 2.0, 3.0)


def task(loss: str, weights: tuple[float, ...] | None = None) -> SegmentationTask:
    return SegmentationTask(("a", "b", "c"), VOID, weights, loss)


def example(classes: int = K) -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, classes, (2, 5, 4))
    labels[0, :2] = VOID
    return torch.randn(2, K, 5, 4), labels


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(weights: tuple[float, ...] | None) -> None:
    logits, labels = example()
    reference = F.cross_entropy(logits, labels, weight=torch.tensor(weights) if weights else None, ignore_index=VOID)
    torch.testing.assert_close(task("", weights).loss(logits, labels), reference)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), WEIGHTS])
def test_focal_by_its_formula(weights: tuple[float, ...]) -> None:
    logits, labels = example()
    probabilities = torch.softmax(logits.double(), 1)
    total = norm = 0.0
    for b, y, x in itertools.product(range(2), range(5), range(4)):
        label = int(labels[b, y, x])
        if label != VOID:
            p = float(probabilities[b, label, y, x])
            total += weights[label] * -((1 - p) ** 2) * math.log(p)
            norm += weights[label]
    assert float(task("focal", weights).loss(logits, labels)) == pytest.approx(total / norm, rel=1e-5)


@pytest.mark.parametrize("classes", [3, 2])
def test_dice_by_its_formula_over_the_classes_that_occur(classes: int) -> None:
    logits, labels = example(classes)
    probabilities = torch.softmax(logits.double(), 1)
    scores = []
    for k in range(classes):  # where 2 classes occur, the third is not counted
        overlap = squares = 0.0
        for b, y, x in itertools.product(range(2), range(5), range(4)):
            if labels[b, y, x] != VOID:
                p, g = float(probabilities[b, k, y, x]), float(labels[b, y, x] == k)
                overlap += p * g
                squares += p * p + g * g
        scores.append(2 * overlap / squares)
    assert float(task("dice").loss(logits, labels)) == pytest.approx(1 - sum(scores) / classes, rel=1e-5)


def jaccard_loss(wrong: frozenset[int], expected: frozenset[int]) -> float:
    """Of a set of mispredicted pixels (Berman et al. 2018, eq. 5)."""
    return len(wrong) / len(expected | wrong)


def extension(errors: list[float], expected: frozenset[int]) -> float:
    """The Lovász extension of a submodular function is the largest value over all orders (Bach 2013, prop. 3.2)."""
    return max(
        sum(
            errors[pixel]
            * (jaccard_loss(frozenset(order[: i + 1]), expected) - jaccard_loss(frozenset(order[:i]), expected))
            for i, pixel in enumerate(order)
        )
        for order in itertools.permutations(range(len(errors)))
    )


@pytest.mark.parametrize("labels", [[0, 1, 2, 1, VOID, 0], [1, 1, VOID, VOID, 0, 1], [2, 2, 2, 2, 2, VOID]])
def test_lovasz_by_definition(labels: list[int]) -> None:
    logits = 2 * torch.randn(1, K, 2, 3)
    probabilities = torch.softmax(logits.double(), 1)[0].flatten(1)
    known = [i for i, label in enumerate(labels) if label != VOID]
    losses = []
    for k in {labels[i] for i in known}:
        expected = frozenset(n for n, i in enumerate(known) if labels[i] == k)
        errors = [abs(float(labels[i] == k) - float(probabilities[k, i])) for i in known]
        losses.append(extension(errors, expected))
    result = task("lovasz").loss(logits, torch.tensor(labels).view(1, 2, 3))
    assert float(result) == pytest.approx(sum(losses) / len(losses), abs=1e-6)


def test_lovasz_of_certain_maps_is_one_minus_the_mean_iou() -> None:
    labels = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    predicted = torch.tensor([[[0, 1, 1, 1, 2, 0]]])
    logits = 100 * F.one_hot(predicted, K).permute(0, 3, 1, 2).float()
    iou = (1 / 3 + 2 / 3 + 1 / 2) / 3
    assert float(task("lovasz").loss(logits, labels)) == pytest.approx(1 - iou, abs=1e-6)


def masks() -> tuple[Tensor, Tensor, Tensor]:
    target = torch.randint(0, 2, (2, 2, 6, 5))
    valid = torch.rand(2, 2, 6, 5) < 0.8
    return torch.randn(2, 2, 6, 5), torch.where(valid, target, 255), valid


def test_binary_cross_entropy_is_torchs_over_valid_pixels() -> None:
    logits, target, valid = masks()
    weight = torch.tensor([3.0, 0.5])[:, None, None]
    reference = F.binary_cross_entropy_with_logits(logits, (target == 1).float(), pos_weight=weight, reduction="none")[
        valid
    ].mean()
    torch.testing.assert_close(MultilabelTask(("a", "b"), (3.0, 0.5)).loss(logits, target), reference)


def test_binary_focal_is_torchvisions_over_valid_pixels() -> None:
    logits, target, valid = masks()
    reference = sigmoid_focal_loss(logits[valid], (target == 1).float()[valid], alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(MultilabelTask(("a", "b"), loss_name="focal").loss(logits, target), reference)


def test_binary_dice_is_per_channel_over_valid_pixels() -> None:
    logits, target, valid = masks()
    scores = []
    for k in range(2):
        p, g = torch.sigmoid(logits[:, k][valid[:, k]]), (target[:, k][valid[:, k]] == 1).float()
        scores.append(2 * (p @ g) / (p @ p + g @ g))
    result = MultilabelTask(("a", "b"), loss_name="dice").loss(logits, target)
    torch.testing.assert_close(result, 1 - (scores[0] + scores[1]) / 2)


def test_balanced_weights_by_hand() -> None:
    assert balanced_weights([100, 50, 25]) == (0.5, 1.0, 2.0)
    assert balanced_weights([100, 0, 50]) == (0.75, 1.0, 1.5)  # the median of those that occur is 75
    assert balanced_weights([10**6, 1000, 1]) == (0.1, 1.0, 10.0)  # at most ten times more or less
    assert balanced_weights([0, 0]) == (1.0, 1.0)
