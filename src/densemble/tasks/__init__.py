"""Tasks: what a map means. Each gives channels, activation, losses, metrics, its targets and its plain description."""

from collections.abc import Callable
from typing import Any

from densemble.errors import UsageError
from densemble.tasks.base import Distribution, TargetKind, Task
from densemble.tasks.classes import balanced_weights
from densemble.tasks.heatmap import HeatmapTask, make_heatmap
from densemble.tasks.image import ImageTask, make_image
from densemble.tasks.multilabel import MultilabelTask, make_multilabel
from densemble.tasks.regression import RegressionTask, make_regression
from densemble.tasks.saliency import SaliencyTask, make_saliency
from densemble.tasks.segmentation import SegmentationTask, make_segmentation

__all__ = [
    "TASKS",
    "Distribution",
    "HeatmapTask",
    "ImageTask",
    "MultilabelTask",
    "RegressionTask",
    "SaliencyTask",
    "SegmentationTask",
    "TargetKind",
    "Task",
    "balanced_weights",
    "make_task",
    "require_task",
]

TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "saliency": make_saliency,
    "segmentation": make_segmentation,
    "multilabel": make_multilabel,
    "regression": make_regression,
    "depth": make_regression,
    "heatmap": make_heatmap,
    "image": make_image,
}
"""Task by name: called with the plain values of :meth:`Task.describe`."""


def require_task(name: str) -> str:
    """``name`` if it is a task.

    Raises:
        UsageError: it is not; those that are get listed.
    """
    if name not in TASKS:
        raise UsageError(f"no task is named '{name}'; there are: {', '.join(TASKS)}")
    return name


def make_task(values: dict[str, Any]) -> Task:
    """A task from its plain description (see :meth:`Task.describe`).

    Raises:
        UsageError: unknown name, or values that the task refuses.
    """
    return TASKS[require_task(str(values.get("name")))](values)
