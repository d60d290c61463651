"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks")."""

import copy
import math
from collections.abc import Iterable
from itertools import cycle
from typing import Any

import torch

from densemble.nets.dense import DenseModel
from densemble.tasks import Task
from densemble.training.module import backbone_rates
from densemble.training.settings import FitSettings

LOWEST, HIGHEST, STEPS = 1e-6, 0.3, 60
_SMOOTHING = 0.9
_DIVERGED = 4.0


def find_learning_rate(
    model: DenseModel, task: Task, settings: FitSettings, feed: Iterable[tuple[Any, Any]]
) -> tuple[float, list[tuple[float, float]]]:
    """Trains a copy with a rate that grows from step to step, and takes that at which the loss falls fastest.

    Args:
        model: is not changed.
        feed: batches of images and targets.

    Returns:
        Peak learning rate of the head, and the curve of (rate, smoothed loss).
    """
    trial = copy.deepcopy(model).train()
    groups = [
        {"params": parameters, "share": share}
        for parameters, share in backbone_rates(trial.backbone, settings.backbone_share, settings.layer_decay)
    ]
    groups.append({"params": list(trial.head.parameters()), "share": 1.0})
    optimizer = torch.optim.AdamW(groups, lr=LOWEST, weight_decay=settings.weight_decay)
    device = next(trial.parameters()).device
    curve: list[tuple[float, float]] = []
    smoothed, lowest = 0.0, math.inf
    for step, (images, target) in zip(range(STEPS), cycle(feed), strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad()
        loss = task.loss(trial(images.to(device)), target.to(device))
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


def steepest(curve: list[tuple[float, float]]) -> float:
    """The rate at which the loss falls fastest per doubling of it; what the first and last steps say is left out."""
    inner = curve[5:-3]
    if len(inner) < 3:
        return 1e-3
    slopes = [(inner[i + 1][1] - inner[i - 1][1], inner[i][0]) for i in range(1, len(inner) - 1)]
    return min(slopes)[1]
