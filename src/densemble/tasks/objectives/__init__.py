"""Objectives: every metric of a task as sums over pictures, of many mixtures at a time."""

from densemble.errors import UsageError
from densemble.tasks import HeatmapTask, ImageTask, MultilabelTask, RegressionTask, SaliencyTask, SegmentationTask, Task
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
        ValueError: a task that is none of ``TASKS``.
    """
    match task:
        case SegmentationTask():
            found = segmentation_objectives(task.ignore_index)
        case MultilabelTask():
            found = multilabel_objectives()
        case SaliencyTask():
            found = saliency_objectives()
        case RegressionTask():
            found = regression_objectives(task.invalid_below)
        case HeatmapTask(mode="keypoints"):
            found = keypoint_objectives()
        case HeatmapTask():
            found = density_objectives()
        case ImageTask():
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
