"""Objectives: sums over images equal the task's metrics."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from densemble.ensemble.resize import resize_maps
from densemble.errors import DataError, UsageError
from densemble.metrics import ScoredImage
from densemble.tasks import (
    HeatmapTask,
    ImageTask,
    MultilabelTask,
    RegressionTask,
    SaliencyTask,
    SegmentationTask,
    Task,
)

SIZES = ((24, 32), (17, 21), (24, 32))
CLASSES = ("road", "sky", "car")


def labels(size: tuple[int, int]) -> Tensor:
    result = torch.randint(0, 2, size)  # the class 2 occurs nowhere
    result[:3] = 255
    return result


def masks(size: tuple[int, int]) -> Tensor:
    result = (torch.rand(3, *size) < 0.2).long()
    result[1, 4:6] = 255
    result[2] = 0
    return result


def depth(size: tuple[int, int]) -> Tensor:
    result = torch.rand(size) * 4 - 0.5
    result[torch.rand(size) < 0.1] = torch.nan
    return result


def pixels(size: tuple[int, int]) -> Tensor:
    result = torch.rand(3, *size)
    result[:, 20:, 5:9] = torch.nan
    return result


def peaks(size: tuple[int, int]) -> Tensor:
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    first = torch.exp(-((rows - 5) ** 2 + (columns - 7) ** 2) / 8)
    second = torch.exp(-((rows - 12) ** 2 + (columns - 3) ** 2) / 8)
    return torch.stack([first, torch.maximum(first, second), torch.zeros(size)])


CASES: dict[str, tuple[Task, Callable[[tuple[int, int]], Tensor]]] = {
    "segmentation": (SegmentationTask(CLASSES), labels),
    "ignored class": (SegmentationTask(CLASSES, ignore_index=0), lambda size: torch.randint(0, 3, size)),
    "multilabel": (MultilabelTask(CLASSES), masks),
    "saliency": (SaliencyTask(), torch.rand),
    "depth": (RegressionTask(), depth),
    "regression": (RegressionTask(invalid_below=None), depth),
    "keypoints": (HeatmapTask(CLASSES), peaks),
    "density": (HeatmapTask(CLASSES, mode="density"), lambda size: torch.rand(3, *size)),
    "image": (ImageTask(), pixels),
}
NAMES = [(case, name) for case, (task, _) in CASES.items() for name in task.metrics().objectives]


def nothing_known(case: str, target: Tensor) -> Tensor:
    """The same with all targets unknown."""
    task = CASES[case][0]
    if task.has_temperature:
        return torch.full_like(target, int(task.fill))
    return torch.zeros_like(target) if case in ("saliency", "keypoints", "density") else target * torch.nan


def images(case: str) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Maps of three candidates at the target's size, the target and, for some, fixations."""
    task, make_target = CASES[case]
    torch.manual_seed(len(case))
    result = []
    for number, size in enumerate(SIZES):
        logits = 2 * torch.randn(3, task.out_channels, 12, 16)
        maps = task.activation(logits).half().float()
        points = torch.rand(size) < 0.03 if number else None
        target = make_target(size)
        result.append((resize_maps(maps, size, task.target_kind == "density"), target, points))
    maps, target, _ = result[0]
    return [*result, (maps, nothing_known(case, target), None)]


@pytest.mark.parametrize(("case", "name"), NAMES)
def test_equals_the_metric_of_the_task(case: str, name: str) -> None:
    task, data = CASES[case][0], images(case)
    objective = task.objective(name)
    sums = torch.stack([objective.statistics(ScoredImage(*image)) for image in data]).sum(0)
    assert sums.dtype == torch.float64
    assert sums.isfinite().all()
    for number, result in enumerate(objective.value(sums).tolist()):
        metric = task.metrics()
        for maps, target, points in data:
            metric.update(maps[number], target, points)
        expected = metric.compute()[name]
        if expected is None:
            assert result != result
        else:
            assert result == pytest.approx(expected, abs=0.01 if name == "map" else 1e-6, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_every_number_that_the_task_tells_can_be_an_objective(case: str) -> None:
    task = CASES[case][0]
    metric = task.metrics()
    for maps, target, points in images(case):
        metric.update(maps[0], target, points)
    scalars = {name for name, value in metric.compute().items() if not isinstance(value, list)}
    assert scalars == set(task.metrics().objectives)
    assert task.objective().name == task.primary
    assert task.objective().higher_is_better == task.higher_is_better


@pytest.mark.parametrize(("case", "name"), NAMES)
def test_more_is_better_where_it_says_so(case: str, name: str) -> None:
    task, make_target = CASES[case]
    torch.manual_seed(0)
    target = make_target((24, 32))
    ideal, _ = task.as_maps(target)
    guess = task.activation(torch.randn(1, task.out_channels, 24, 32))[0].abs()
    points = torch.rand(24, 32) < 0.2 * target if case == "saliency" else None
    better = ideal if task.has_temperature or case == "keypoints" else 0.9 * ideal + 0.1 * guess
    objective = task.objective(name)
    right, wrong = objective.signed(objective.statistics(ScoredImage(torch.stack([better, guess]), target, points)))
    assert right > wrong


def test_undefined_is_nan_and_signed_the_worst() -> None:
    objective = RegressionTask().objective("mae")
    sums = objective.statistics(ScoredImage(torch.rand(2, 1, 4, 5), torch.full((4, 5), torch.nan)))
    assert objective.value(sums).isnan().all()
    assert (objective.signed(sums) == -torch.inf).all()


def test_silog_is_undefined_only_for_the_candidate_with_values_that_are_not_positive() -> None:
    objective = RegressionTask(invalid_below=None).objective("silog")
    maps = torch.rand(2, 1, 4, 5) + 0.1
    maps[1, 0, 0, 0] = -1
    assert objective.value(objective.statistics(ScoredImage(maps, torch.ones(4, 5)))).isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("task", "target"),
    [(SegmentationTask(CLASSES), torch.full((4, 5), 7)), (MultilabelTask(CLASSES), torch.full((3, 4, 5), 2))],
)
def test_a_target_that_is_none_is_refused(task: Task, target: Tensor) -> None:
    for objective in task.metrics().objectives.values():
        with pytest.raises(DataError, match=r"label 7|holds 2"):
            objective.statistics(ScoredImage(torch.rand(2, 3, 4, 5), target))


def test_an_unknown_name_lists_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"'iou'.*miou, pixel_accuracy"):
        SegmentationTask(CLASSES).objective("iou")
