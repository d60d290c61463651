"""Objectives: every metric of a task as sums over pictures, of many mixtures at a time."""

from densemble.errors import UsageError
from densemble.metrics import (
    DensityMetrics,
    ImageMetrics,
    KeypointMetrics,
    MultilabelMetrics,
    RegressionMetrics,
    SaliencyMetrics,
    SegmentationMetrics,
)
from densemble.tasks import Task
from densemble.tasks.objectives.base import Objective
from densemble.tasks.objectives.heatmap import density_objectives, keypoint_objectives
from densemble.tasks.objectives.image import image_objectives
from densemble.tasks.objectives.multilabel import multilabel_objectives
from densemble.tasks.objectives.regression import regression_objectives
from densemble.tasks.objectives.saliency import saliency_objectives
from densemble.tasks.objectives.segmentation import segmentation_objectives

__all__ = ["Objective", "make_objective", "objectives"]


def objectives(task: Task) -> dict[str, Objective]:
    """All objectives of a task by name.

    Raises:
        ValueError: a task with metrics of another kind than those of ``densemble.metrics``.
    """
    match task.metrics():
        case SegmentationMetrics():
            found = segmentation_objectives(int(task.fill))
        case MultilabelMetrics():
            found = multilabel_objectives()
        case SaliencyMetrics():
            found = saliency_objectives()
        case RegressionMetrics():
            found = regression_objectives(task.invalid_below)
        case KeypointMetrics():
            found = keypoint_objectives()
        case DensityMetrics():
            found = density_objectives()
        case ImageMetrics():
            found = image_objectives()
        case _:
            raise ValueError(f"no objectives are written for {type(task).__name__}")
    return {objective.name: objective for objective in found}


def make_objective(task: Task, name: str | None = None) -> Objective:
    """The objective of that name; default the task's primary metric.

    Raises:
        UsageError: the task has no such objective; those that it has get listed.
    """
    known = objectives(task)
    wanted = name or task.primary
    if wanted not in known:
        raise UsageError(f"{task.name} is not chosen by '{wanted}'; there are: {', '.join(known)}")
    return known[wanted]
