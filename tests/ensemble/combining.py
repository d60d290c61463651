"""Tasks, maps of members and held-out images for the tests of combination rules."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE, Fitted, Images, rules_for
from densemble.tasks import (
    HeatmapTask,
    ImageTask,
    MultilabelTask,
    RegressionTask,
    SaliencyTask,
    SegmentationTask,
    Task,
)

TASKS: list[Task] = [
    SaliencyTask(),
    HeatmapTask(("a", "b")),
    HeatmapTask(("a", "b"), mode="density", scale=4.0),
    SegmentationTask(("a", "b", "c"), ignore_index=7),
    MultilabelTask(("a", "b")),
    RegressionTask(scale=3.0),
    ImageTask(channels=2),
]
PAIRS = [(rule, task) for task in TASKS for rule in rules_for(task)]
FITTED_PAIRS = [(rule, task) for rule, task in PAIRS if COMBINE[rule].fit is not None]
H, W = 10, 12


def name_of(value: object) -> str:
    return f"{value.name}-{value.target_kind}" if isinstance(value, Task) else str(value)


def some_maps(task: Task, members: int = 3, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members * batch, task.out_channels, H, W, generator=generator)
    return task.activation(logits).view(members, batch, task.out_channels, H, W)


def start_of(rule: str, task: Task, weights: list[float]) -> Fitted:
    """Initial parameters of a fitted rule, from the weights."""
    shares, channels = torch.tensor(weights) / sum(weights), task.out_channels
    match rule:
        case "class_weights":
            return {"class_weights": shares[:, None].expand(-1, channels)}
        case "inverse_variance":
            return {"precisions": shares}
        case "stacking" if task.distribution == "none":
            return {"kernel": shares[:, None].expand(-1, channels)}
        case "stacking":
            return {"kernel": shares[:, None, None] * torch.eye(channels), "bias": torch.zeros(channels)}
        case _:
            return {}


def combine(maps: Tensor, weights: Sequence[float], rule: str, task: Task, fitted: Fitted | None = None) -> Tensor:
    """Combine stacked maps of members named by their index."""
    shares = {str(number): weight for number, weight in enumerate(weights)}
    return Combination(task, shares, rule, dict(fitted or {})).combine(maps)


def held_out(task: Task, noises: tuple[float, ...] = (0.5, 1.0, 2.0), count: int = 4) -> Images:
    """Images with members that predict the target plus noise; the first row of the target is unknown if possible."""
    generator = torch.Generator().manual_seed(1)
    images = []
    for _ in range(count):
        target = 2 * torch.randn(1, task.out_channels, H, W, generator=generator)
        noise = torch.randn(len(noises), *target.shape[1:], generator=generator)
        maps = task.activation(target + torch.tensor(noises)[:, None, None, None] * noise)
        images.append((maps, as_target(task, task.activation(target)[0])))

    def read() -> Iterator[tuple[Tensor, Tensor]]:
        yield from images

    return read


def as_target(task: Task, ideal: Tensor) -> Tensor:
    """Target with the ideal map ``(K, h, w)``; its first row is unknown if the task has unknown pixels."""
    match task.target_kind:
        case "labels":
            target = ideal.argmax(0)
        case "masks":
            target = (ideal >= 0.5).long()
        case _:
            target = ideal.clone() if task.planes else ideal[0].clone()
    target[..., 0, :] = {"masks": 255}.get(task.target_kind, task.fill)
    return target


def only_known(change: Callable[[Tensor], Tensor], images: Images, task: Task) -> Images:
    """The same images with the members' maps changed where the target is unknown."""

    def read() -> Iterator[tuple[Tensor, Tensor]]:
        for maps, target in images():
            yield torch.where(task.as_maps(target)[1], maps, change(maps)), target

    return read
