"""Losses and activations against independent values."""

import pytest
import torch
import torch.nn.functional as F

from densemble.errors import UsageError
from densemble.tasks import TASKS, RegressionTask, SaliencyTask, SegmentationTask, Task, make_task

EXAMPLES: list[tuple[Task, torch.Tensor]] = [
    (SaliencyTask(), torch.rand(2, 6, 8)),
    (SegmentationTask(("a", "b", "c"), ignore_index=255), torch.randint(0, 3, (2, 6, 8))),
    (RegressionTask(scale=3.0), torch.rand(2, 6, 8) + 0.1),
]
IDS = [task.name for task, _ in EXAMPLES]


@pytest.mark.parametrize(("task", "target"), EXAMPLES, ids=IDS)
def test_loss_is_a_finite_scalar_with_gradient_and_training_lowers_it(task: Task, target: torch.Tensor) -> None:
    logits = torch.zeros(2, task.out_channels, 6, 8, requires_grad=True)
    first = task.loss(logits, target)
    assert first.ndim == 0 and first.dtype == torch.float32
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        task.loss(logits, target).backward()
        optimizer.step()
    assert task.loss(logits, target) < 0.7 * first


@pytest.mark.parametrize(
    ("task", "target"),
    [
        (SaliencyTask(), torch.zeros(2, 4, 4)),
        (SegmentationTask(("a", "b"), 255), torch.full((2, 4, 4), 255)),
        (RegressionTask(), torch.zeros(2, 4, 4)),
        (RegressionTask(invalid_below=None), torch.full((2, 4, 4), float("nan"))),
    ],
)
def test_a_batch_without_a_valid_pixel_gives_no_nan(task: Task, target: torch.Tensor) -> None:
    logits = torch.randn(2, task.out_channels, 4, 4, requires_grad=True)
    loss = task.loss(logits, target)
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_segmentation_loss_is_cross_entropy_over_valid_pixels() -> None:
    task = SegmentationTask(("a", "b", "c"), ignore_index=11)
    logits, target = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))
    target[0, :2] = 11
    torch.testing.assert_close(task.loss(logits, target), F.cross_entropy(logits, target, ignore_index=11))


def test_saliency_loss_is_lowest_at_the_target() -> None:
    task, target = SaliencyTask(), torch.rand(1, 6, 8) * 0.8 + 0.1
    perfect = task.loss(torch.logit(target)[:, None], target)
    entropy = F.binary_cross_entropy(target, target)  # what even a perfect map cannot avoid
    assert perfect.item() == pytest.approx(entropy.item(), abs=1e-4)
    assert task.loss(torch.logit(target.flip(-1))[:, None], target) > perfect


def test_regression_does_not_see_invalid_pixels_and_works_in_its_unit() -> None:
    task = RegressionTask(scale=1000.0)
    target = torch.tensor([[[2000.0, 0.0]]])
    logits = torch.tensor([[[[2.0, 5.0]]]])
    wanted = (F.softplus(torch.tensor(2.0)) * 1000 - 2000).abs() / 1000
    torch.testing.assert_close(task.loss(logits, target), wanted)


@pytest.mark.parametrize("task", [task for task, _ in EXAMPLES], ids=IDS)
def test_description_builds_the_same_task(task: Task) -> None:
    assert make_task(task.describe()) == task
    assert task.name in TASKS


def test_unknown_task_names_those_that_are() -> None:
    with pytest.raises(UsageError, match="saliency, segmentation"):
        make_task({"name": "saliancy"})
