"""Data options that an ensemble stores, for other data sets of the same format."""

from typing import Any

from densemble.ensemble.ensemble import Ensemble


def trained_options(ensemble: Ensemble) -> dict[str, Any]:
    """Return the options of :class:`DataOptions` that the task and the artifact store."""
    task = ensemble.task.describe()
    option_of_field = {"classes": "classes", "ignore_index": "ignore_index", "file_scale": "scale", "mode": "heatmap"}
    known = {option: task[field] for field, option in option_of_field.items() if field in task}
    return {**known, "invalid_below": task.get("invalid_below", 0.0), **ensemble.reading}
