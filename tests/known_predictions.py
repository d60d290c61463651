"""Predictions with known maps, so that files can be compared with them."""

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from densemble.inference.image_prediction import ImagePrediction
from densemble.shapes import Array
from densemble.tasks import MultilabelTask, SegmentationTask, Task

CLASSES = ("background", "road", "car", "sky")


def blobs(seed: int, classes: int = 4, size: tuple[int, int] = (24, 31)) -> Array:
    """A label map with regions, holes, single pixels and pixels that touch at corners."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(classes, *size)), (0, 1.5, 1.5)) * 6
    label: Array = (smooth + random.normal(size=smooth.shape) * 0.5).argmax(0)
    return label


def make(
    label: Array, path: Path | None = None, task: Task | None = None, valid: Array | None = None, name: str = "a"
) -> ImagePrediction:
    """The prediction of these labels; the probability of a pixel's class is 0.6 in the upper half and 0.8 below."""
    task = task or SegmentationTask(CLASSES)
    height, width = label.shape
    own = np.where(np.arange(height) < height // 2, 0.6, 0.8)[:, None] * np.ones(width)
    others = (1 - own) / (task.out_channels - 1)
    mean = np.where(np.arange(task.out_channels)[:, None, None] == label, own, others).astype(np.float32)
    return of_maps(mean, task, path, valid, name)


def of_maps(
    mean: Array, task: Task, path: Path | None = None, valid: Array | None = None, name: str = "a"
) -> ImagePrediction:
    maps = torch.from_numpy(np.ascontiguousarray(mean, np.float32))
    label = maps.argmax(0) if task.distribution == "categorical" else None
    others = dict.fromkeys(("variance", "entropy", "expected_entropy", "mutual_information", "disagreement"))
    image = np.zeros((*mean.shape[1:], 3), np.uint8)
    return ImagePrediction(mean=maps, label=label, image=image, name=name, path=path, task=task, valid=valid, **others)  # type: ignore[arg-type]


def overlapping(seed: int, size: tuple[int, int] = (24, 31)) -> tuple[Array, MultilabelTask]:
    """Probabilities of three masks that overlap."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(3, *size)), (0, 1.5, 1.5)) * 4
    return 1 / (1 + np.exp(-smooth)), MultilabelTask(("cat", "dog", "tail"))
