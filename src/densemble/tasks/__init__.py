"""Tasks: meaning of maps. A task defines channels, activation, losses, metrics, targets and a plain description."""

from typing import Any

from densemble.errors import UsageError, unknown_name
from densemble.tasks.class_settings import balanced_weights
from densemble.tasks.heatmap import HeatmapTask
from densemble.tasks.image import ImageTask
from densemble.tasks.multilabel import MultilabelTask
from densemble.tasks.regression import DepthTask, RegressionTask
from densemble.tasks.saliency import SaliencyTask
from densemble.tasks.segmentation import SegmentationTask
from densemble.tasks.task import Distribution, TargetKind, Task

__all__ = [
    "TASKS",
    "DepthTask",
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

TASKS: dict[str, type[Task]] = {
    "saliency": SaliencyTask,
    "segmentation": SegmentationTask,
    "multilabel": MultilabelTask,
    "regression": RegressionTask,
    "depth": DepthTask,
    "heatmap": HeatmapTask,
    "image": ImageTask,
}
"""Tasks by name."""


def require_task(name: str) -> str:
    """Return ``name`` if it is the name of a task.

    Raises:
        UsageError: it is not; the message lists the names.
    """
    if name not in TASKS:
        raise UsageError(unknown_name("task", name, TASKS))
    return name


def make_task(values: dict[str, Any]) -> Task:
    """Build a task from its plain description (see :meth:`Task.describe`).

    Raises:
        UsageError: the name is unknown, or the task rejects the values.
    """
    return TASKS[require_task(str(values.get("name")))].described(values)
