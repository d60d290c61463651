"""The contract of every task with each of its losses; rows of ``TASKS`` without an example fail."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from densemble.errors import UsageError
from densemble.tasks import TASKS, Task, make_task

H, W = 14, 18
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "saliency": [{}],
    "segmentation": [{"classes": ["a", "b", "c"], "ignore_index": 11, "class_weights": [1.0, 2.0, 0.5]}],
    "multilabel": [{"classes": ["a", "b"], "class_weights": [3.0, 1.0]}, {"classes": ["a"]}],
    "regression": [{"scale": 3.0}, {"invalid_below": None}],
    "depth": [{"unit": "m"}],
    "heatmap": [{"classes": ["a", "b"]}, {"classes": ["a"], "mode": "density", "scale": 5.0}],
    "image": [{"channels": 3}, {"channels": 1}],
}
TASK_EXAMPLES = [make_task({"name": name, **values}) for name, rows in EXAMPLES.items() for values in rows]


def with_losses() -> list[Any]:
    """Each example with each loss that it accepts, and with its default."""
    result = []
    for task in TASK_EXAMPLES:
        description = {key: value for key, value in task.describe().items() if key != "class_weights"}
        for loss in ("", *task.losses):
            if loss == "silog" and description["invalid_below"] is None:
                continue
            name = f"{task.name}-{task.target_kind}-{loss or 'default'}"
            result.append(pytest.param(make_task({**description, "loss_name": loss}), id=name))
    return result


every_task = pytest.mark.parametrize("task", TASK_EXAMPLES, ids=lambda task: f"{task.name}-{task.target_kind}")
every_loss = pytest.mark.parametrize("task", with_losses())
every_loss_with_void = pytest.mark.parametrize(
    "task", [row for row in with_losses() if row.values[0].target_kind not in ("heat", "density")]
)


def example_target(task: Task, batch: int = 2) -> Tensor:
    planes = (task.out_channels,) if task.planes else ()
    shape = (batch, *planes, H, W)
    match task.target_kind:
        case "labels":
            return torch.randint(0, task.out_channels, shape, dtype=torch.uint8)
        case "masks":
            return torch.randint(0, 2, shape, dtype=torch.uint8)
        case "heat" | "density":
            rows, columns = torch.arange(H)[:, None], torch.arange(W)
            return torch.exp(-((rows - 5) ** 2 + (columns - 7) ** 2) / 8).expand(shape).clone()
        case _:
            return torch.rand(shape) * 0.8 + 0.1


def void_target(task: Task) -> Tensor:
    target = example_target(task)
    return torch.full_like(target, task.fill)


def test_every_task_has_an_example() -> None:
    assert set(EXAMPLES) == set(TASKS)


def test_only_probabilities_of_observed_events_have_an_entropy_as_uncertainty() -> None:
    assert {task.target_kind: task.uncertainty for task in TASK_EXAMPLES} == {
        "labels": "entropy", "masks": "entropy",
        "heat": "variance", "density": "variance", "values": "variance", "pixels": "variance",
    }  # fmt: skip


@every_loss
def test_a_description_survives_json_and_builds_the_same_task(task: Task) -> None:
    assert make_task(json.loads(json.dumps(task.describe(), allow_nan=False))) == task
    assert task.name in TASKS


@every_loss
def test_optimizing_the_logits_lowers_the_loss(task: Task) -> None:
    target = example_target(task)
    logits = (0.1 * torch.randn(2, task.out_channels, H, W)).requires_grad_()
    first = task.loss(logits, target)
    assert first.ndim == 0 and first.dtype == torch.float32
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(40):
        optimizer.zero_grad()
        task.loss(logits, target).backward()
        optimizer.step()
    assert task.loss(logits, target) < 0.7 * first


@every_loss_with_void
def test_a_batch_that_is_all_void_gives_zero_and_no_gradient(task: Task) -> None:
    logits = torch.randn(2, task.out_channels, H, W, requires_grad=True)
    loss = task.loss(logits, void_target(task))
    loss.backward()
    assert loss == 0 and logits.grad is not None and (logits.grad == 0).all()


@every_loss
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_gradients_are_finite_at_flat_and_at_extreme_logits_with_and_without_a_target(task: Task, size: float) -> None:
    for target in (example_target(task), void_target(task)):
        logits = (size * torch.randn(2, task.out_channels, H, W).sign()).requires_grad_()
        loss = task.loss(logits, target)
        loss.backward()
        assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_single_precision(task: Task, dtype: torch.dtype) -> None:
    target, logits = example_target(task), torch.randn(2, task.out_channels, H, W).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.loss(logits, target)
    assert loss.dtype == torch.float32
    assert loss == task.loss(logits.detach().float(), target)
    loss.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@every_loss_with_void
def test_void_pixels_change_nothing(task: Task) -> None:
    logits, target = torch.randn(2, task.out_channels, H, W), example_target(task)
    target[..., :3] = task.fill
    other = logits.clone()
    other[..., :3] = 20 * torch.randn_like(other[..., :3])
    assert float(task.loss(logits, target)) == pytest.approx(float(task.loss(other, target)), rel=1e-6)


@every_task
def test_a_sum_of_losses_is_weighted(task: Task) -> None:
    first, last = task.losses[0], task.losses[-1]
    if task.describe().get("invalid_below", 0.0) is None:
        first, last = "l1", "l2"
    plain = {key: value for key, value in task.describe().items() if key != "class_weights"}
    logits, target = torch.randn(2, task.out_channels, H, W), example_target(task)
    one, two, both = (
        make_task({**plain, "loss_name": loss}).loss(logits, target) for loss in (first, last, f"{first} + 0.25*{last}")
    )
    torch.testing.assert_close(both, one + 0.25 * two)


@every_task
@pytest.mark.parametrize("loss", ["dise", "", "0*NAME", "x*NAME", "-1*NAME", "nan*NAME"])
def test_an_impossible_loss_is_refused_by_name(task: Task, loss: str) -> None:
    chosen = f"{task.losses[0]}+{loss.replace('NAME', task.losses[0])}"
    with pytest.raises(
        UsageError, match="positive number" if "*" in loss else f"{task.name}.*{', '.join(task.losses)}"
    ):
        make_task({**task.describe(), "loss_name": chosen})


@every_task
def test_the_ideal_map_scores_perfectly_and_void_is_valid_nowhere(task: Task) -> None:
    target = example_target(task, batch=1)[0]
    values, valid = task.as_maps(target)
    assert values.shape == (task.out_channels, H, W) and values.dtype == torch.float32
    assert valid.shape in ((1, H, W), (task.out_channels, H, W)) and valid.dtype == torch.bool and valid.all()
    metric = task.metrics()
    metric.update(values, target)
    best = {"psnr": 100.0}.get(task.primary, 1.0 if task.higher_is_better else 0.0)
    assert metric.compute()[task.primary] == pytest.approx(best, abs=1e-6)
    if task.target_kind not in ("heat", "density"):
        values, valid = task.as_maps(void_target(task)[0])
        assert not valid.any() and (values == 0).all()


@every_task
def test_an_activated_map_is_what_the_distribution_says(task: Task) -> None:
    maps = task.activation(5 * torch.randn(2, task.out_channels, H, W))
    assert maps.shape == (2, task.out_channels, H, W)
    if task.distribution != "none":
        assert maps.min() >= 0 and maps.max() <= 1
    if task.distribution == "categorical":
        torch.testing.assert_close(maps.sum(1), torch.ones(2, H, W))


@every_task
def test_the_fill_fits_the_kind(task: Task) -> None:
    expected = {"labels": 11, "masks": 255, "heat": 0, "density": 0}.get(task.target_kind, math.nan)
    assert task.fill == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "old",
    [
        {"name": "saliency"},
        {"name": "segmentation", "classes": ["a", "b"], "ignore_index": 255},
        {"name": "regression", "scale": 2.0, "invalid_below": 0.0, "file_scale": 0.001},
    ],
    ids=lambda old: old["name"],
)
def test_descriptions_of_earlier_versions_stay_as_they_are(old: dict[str, Any]) -> None:
    assert make_task(old).describe() == old


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "saliancy"}, "saliency, segmentation, multilabel"),
        ({"name": "segmentation"}, "names of its classes"),
        ({"name": "multilabel", "classes": []}, "names of its classes"),
        ({"name": "segmentation", "classes": ["a", "b"], "class_weights": [1.0]}, "1 class weights for 2 classes"),
        ({"name": "multilabel", "classes": ["a"], "class_weights": [0.0]}, "positive numbers, got 0"),
        ({"name": "segmentation", "classes": ["a"], "class_weights": [2.0], "loss_name": "dice"}, "cross_entropy or"),
        ({"name": "depth", "invalid_below": None, "loss_name": "silog"}, "invalid_below to 0"),
        ({"name": "heatmap", "classes": ["a"], "mode": "boxes"}, "keypoints, density"),
        ({"name": "image", "channels": 0}, "at least one channel"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_task(values)
