"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks")."""

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from densemble.nets.dense import DenseModel
from densemble.tasks import Task
from densemble.training.module import backbone_rates, let_learn, logits_of
from densemble.training.settings import FitSettings

LOWEST, HIGHEST, STEPS = 1e-6, 0.3, 60
_SMOOTHING = 0.9
_DIVERGED = 4.0


def find_learning_rate(
    model: DenseModel, task: Task, settings: FitSettings, feed: Iterable[tuple[Any, Any]], device: str = "cpu"
) -> tuple[float, list[tuple[float, float]]]:
    """Trains a copy with a rate that grows from step to step, and takes that at which the loss falls fastest.

    Args:
        model: is not changed.
        feed: batches of images, or of features that were computed before, and targets.
        device: where it is computed.

    Returns:
        Peak learning rate of the head, and the curve of (rate, smoothed loss).
    """
    trial = copy.deepcopy(model).to(device).train()
    let_learn(trial.backbone, settings, epoch=0)
    groups = [
        {"params": parameters, "share": share}
        for parameters, share in backbone_rates(trial.backbone, settings.backbone_share, settings.layer_decay)
    ]
    groups.append({"params": list(trial.head.parameters()), "share": 1.0})
    optimizer = torch.optim.AdamW(groups, lr=LOWEST, weight_decay=settings.weight_decay)
    curve: list[tuple[float, float]] = []
    smoothed, lowest = 0.0, math.inf
    for step, (given, target) in zip(range(STEPS), _again_and_again(feed), strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad()
        given = given.to(device) if isinstance(given, Tensor) else [level.to(device) for level in given]
        target = target.to(device)
        loss = task.loss(logits_of(trial, given, target), target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trial.parameters(), 1.0)
        optimizer.step()
        value = float(loss.detach())
        smoothed = _SMOOTHING * smoothed + (1 - _SMOOTHING) * value
        current = smoothed / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(value) or current > _DIVERGED * lowest:
            break
        lowest = min(lowest, current)
        curve.append((rate, current))
    return steepest(curve), curve


def _again_and_again(feed: Iterable[Any]) -> Iterator[Any]:
    """Batches without end, of which none is kept; nothing where ``feed`` is empty."""
    some = True
    while some:
        some = False
        for batch in feed:
            some = True
            yield batch


def steepest(curve: list[tuple[float, float]]) -> float:
    """The rate at which the loss falls fastest per doubling of it; what the first and last steps say is left out."""
    inner = curve[5:-3]
    if len(inner) < 3:
        return 1e-3
    slopes = [(inner[i + 1][1] - inner[i - 1][1], inner[i][0]) for i in range(1, len(inner) - 1)]
    return min(slopes)[1]
