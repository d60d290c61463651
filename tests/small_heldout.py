"""Small sets of held-out predictions with candidates of known quality."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.tasks import RegressionTask, SaliencyTask, SegmentationTask, Task

SIZE = (6, 8)
TASKS: dict[str, Task] = {
    "miou": SegmentationTask(("a", "b", "c")),
    "nll": SegmentationTask(("a", "b", "c")),
    "cc": SaliencyTask(),
    "mae": RegressionTask(invalid_below=None),
}
"""Selection metric -> task."""


def random_target(task: Task, random: np.random.Generator) -> Tensor:
    if isinstance(task, SegmentationTask):
        labels = torch.from_numpy(random.integers(0, 3, SIZE))
        labels[0, :3] = 255
        return labels
    return torch.from_numpy(random.random(SIZE, dtype=np.float32))


def noisy(task: Task, target: Tensor, spread: float, random: np.random.Generator) -> Tensor:
    """Activated map: the target plus noise."""
    ideal, _ = task.as_maps(target)
    noise = torch.from_numpy(random.normal(size=ideal.shape).astype(np.float32)) * spread
    return torch.softmax(2 * ideal + noise, 0) if isinstance(task, SegmentationTask) else (ideal + noise).abs()


def small_set(task: Task, spreads: Sequence[float], images: int = 6, seed: int = 0) -> HeldOut:
    """Candidates whose maps are the target plus noise with the given standard deviations."""
    random = np.random.default_rng(seed)
    targets = [random_target(task, random) for _ in range(images)]
    maps = [
        torch.stack([noisy(task, target, spread, random) for target in targets]).half().numpy() for spread in spreads
    ]
    names = [f"member{number}" for number in range(len(spreads))]
    return held_out(names, maps, [(target, None) for target in targets], task)


def arrays(held: HeldOut) -> list[np.ndarray[Any, Any]]:
    """Arrays that contain the maps of the candidates."""
    return [maps.array for maps in held.maps]
