"""Meaning of the maps of a task, for drawing."""

from densemble.inference.drawing import Meaning
from densemble.tasks import Task


def meaning_of(task: Task) -> Meaning:
    """Meaning of the maps of a task."""
    unit = getattr(task, "unit", "")
    return Meaning(task.target_kind, task.distribution, task.name, task.classes, unit, task.uncertainty)
