"""Losses against maps: values by hand, gradients in closed form, and the minimum at equal maps for every task."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from densemble.tasks import Task, make_task

TASKS: list[dict[str, Any]] = [
    {"name": "saliency"},
    {"name": "segmentation", "classes": ["a", "b", "c"], "loss_name": "cross_entropy+dice"},
    {"name": "segmentation", "classes": ["a", "b", "c"], "class_weights": [1.0, 2.0, 5.0]},
    {"name": "multilabel", "classes": ["a", "b"], "loss_name": "bce+dice"},
    {"name": "multilabel", "classes": ["a", "b"], "class_weights": [1.0, 4.0]},
    {"name": "depth", "scale": 2.0, "loss_name": "l2"},
    {"name": "regression", "scale": 2.0, "invalid_below": None},
    {"name": "heatmap", "classes": ["a", "b"]},
    {"name": "heatmap", "classes": ["a"], "mode": "density", "scale": 3.0},
    {"name": "image", "channels": 3, "loss_name": "l2"},
]


def example(task: Task) -> tuple[Tensor, Tensor]:
    """Logits and weights of two images."""
    return torch.randn(2, task.out_channels, 6, 8), torch.rand(2, 6, 8)


@pytest.mark.parametrize("values", TASKS, ids=lambda values: f"{values['name']} {values.get('loss_name', '')}")
def test_the_loss_is_lowest_at_the_maps(values: dict[str, Any]) -> None:
    task = make_task(values)
    logits, weight = example(task)
    maps = task.activation(logits).detach()
    lowest = task.soft_loss(logits, maps, weight)
    for _ in range(5):
        assert task.soft_loss(logits + 0.1 * torch.randn_like(logits), maps, weight) > lowest


def test_divergence_of_classes_by_hand() -> None:
    task = make_task({"name": "segmentation", "classes": ["a", "b"]})
    maps = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).view(1, 2, 1, 2)  # two pixels
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)  # 0.5 for each class
    loss = task.soft_loss(logits, maps, torch.tensor([[[1.0, 3.0]]]))
    first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert loss.item() == pytest.approx(first / 4)  # the second pixel has no divergence, but three times the weight
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient[0, :, 0], torch.tensor([[-0.25, 0.0], [0.25, 0.0]]) / 4)  # (p - q) x weight


def test_a_class_weight_scales_the_pixels_by_the_probability_of_the_class() -> None:
    weighted = make_task({"name": "segmentation", "classes": ["a", "b"], "class_weights": [1.0, 5.0]})
    plain = make_task({"name": "segmentation", "classes": ["a", "b"]})
    logits, weight = example(plain)
    maps = torch.softmax(torch.randn_like(logits), 1)
    scaled = weight * (maps[:, 0] + 5 * maps[:, 1])
    torch.testing.assert_close(weighted.soft_loss(logits, maps, weight), plain.soft_loss(logits, maps, scaled))


def test_divergence_of_masks_by_hand() -> None:
    task = make_task({"name": "multilabel", "classes": ["a"]})
    loss = task.soft_loss(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.9), torch.ones(1, 1, 1))
    assert loss.item() == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))


def test_values_are_compared_in_units_of_the_scale_and_pixels_have_weights() -> None:
    task = make_task({"name": "regression", "scale": 2.0, "invalid_below": None})
    logits = torch.tensor([[[[1.0, 2.0]]]])  # values 2 and 4
    maps = torch.tensor([[[[3.0, 10.0]]]])
    assert task.soft_loss(logits, maps, torch.tensor([[[3.0, 1.0]]])).item() == pytest.approx((3 * 0.5 + 3.0) / 4)


def test_an_image_of_whole_map_losses_has_the_mean_weight_of_its_pixels() -> None:
    task = make_task({"name": "saliency"})
    logits, _ = example(task)
    maps = torch.rand(2, 1, 6, 8)
    weight = torch.stack([torch.full((6, 8), 0.25), torch.full((6, 8), 0.75)])
    first, second = (task.loss(logits[i : i + 1], maps[i : i + 1, 0]) for i in (0, 1))
    torch.testing.assert_close(task.soft_loss(logits, maps, weight), 0.25 * first + 0.75 * second)


def test_one_hot_maps_of_equal_weight_give_the_loss_on_labels() -> None:
    task = make_task({"name": "segmentation", "classes": ["a", "b", "c"], "loss_name": "cross_entropy+dice"})
    logits, _ = example(task)
    labels = torch.randint(0, 3, (2, 6, 8))
    maps = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    torch.testing.assert_close(task.soft_loss(logits, maps, torch.ones(2, 6, 8)), task.loss(logits, labels))
