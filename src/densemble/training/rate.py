"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks")."""

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from densemble.nets.dense import DenseModel
from densemble.progress.phases import track
from densemble.tasks import Task
from densemble.training.module import Loss, compute_logits, parameter_groups, set_training_mode
from densemble.training.settings import FitSettings

LOWEST, HIGHEST, STEPS = 1e-6, 0.3, 60
_SMOOTHING = 0.9
_DIVERGED = 4.0


def find_learning_rate(
    model: DenseModel,
    task: Task,
    settings: FitSettings,
    feed: Iterable[tuple[Any, Any]],
    device: str = "cpu",
    loss: Loss | None = None,
) -> tuple[float, list[tuple[float, float]]]:
    """Find the learning rate at which the loss falls fastest, by training a copy with a rising rate.

    Args:
        model: network to measure; it is not changed.
        feed: batches of images or cached features, with targets.
        device: device of the copy.
        loss: loss of the training, of logits and targets; default: the task's.

    Returns:
        Peak learning rate of the head, and the curve of (rate, smoothed loss).
    """
    trial = copy.deepcopy(model).to(device).train()
    set_training_mode(trial.backbone, settings, epoch=0)
    optimizer = torch.optim.AdamW(parameter_groups(trial, settings, 1.0), weight_decay=settings.weight_decay)
    shares = [group["lr"] for group in optimizer.param_groups]
    curve: list[tuple[float, float]] = []
    smoothed, lowest = 0.0, math.inf
    steps = track(range(STEPS), "learning rate test", STEPS)
    for step, (inputs, target) in zip(steps, _repeat(feed), strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        optimizer.zero_grad()
        inputs = inputs.to(device) if isinstance(inputs, Tensor) else [level.to(device) for level in inputs]
        target = target.to(device)
        batch_loss = (loss or task.loss)(compute_logits(trial, inputs, target), target)
        batch_loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trial.parameters(), 1.0)
        optimizer.step()
        value = float(batch_loss.detach())
        smoothed = _SMOOTHING * smoothed + (1 - _SMOOTHING) * value
        current = smoothed / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(value) or current > _DIVERGED * lowest:
            break
        lowest = min(lowest, current)
        curve.append((rate, current))
    return steepest(curve), curve


def _repeat(feed: Iterable[Any]) -> Iterator[Any]:
    """Iterate over ``feed`` again and again, without keeping batches; stop if it is empty."""
    is_empty = False
    while not is_empty:
        is_empty = True
        for batch in feed:
            is_empty = False
            yield batch


def steepest(curve: list[tuple[float, float]]) -> float:
    """Return the rate at which the loss falls fastest per doubling of the rate; first and last steps are ignored."""
    inner = curve[5:-3]
    if len(inner) < 3:
        return 1e-3
    slopes = [(inner[i + 1][1] - inner[i - 1][1], inner[i][0]) for i in range(1, len(inner) - 1)]
    return min(slopes)[1]
