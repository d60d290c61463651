"""Maps as they are stored: whole numbers wherever the training maps were whole."""

from typing import Any

import numpy as np

from densemble.tasks import Task

Array = np.ndarray[Any, Any]


def stored_labels(labels: Array, classes: int) -> Array:
    """Labels of any shape as uint8, of more than 256 classes as uint16."""
    return labels.astype(np.uint8 if classes <= 256 else np.uint16)


def stored_maps(maps: Array, task: Task) -> Array:
    """Activated maps ``(K, ...)`` as they are stored.

    Returns:
        Probabilities, heat and pixels as 0..255 uint8; values in the training maps' own unit, uint16 where those were
        whole numbers, else float32; densities float32. The same shape.
    """
    if task.target_kind == "values":
        about = task.describe()
        own: Array = (maps / about["file_scale"]).astype(np.float32)
        return own.round().clip(0, 65535).astype(np.uint16) if about.get("whole", True) else own
    if task.target_kind == "density":
        return maps.astype(np.float32)
    whole: Array = (maps * 255).round().clip(0, 255).astype(np.uint8)
    return whole
