"""Scores on a split, picture by picture: nothing is kept but the running metrics."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.data.layouts import Sample
from densemble.ensemble.combine import COMBINE
from densemble.ensemble.ensemble import Ensemble, as_images
from densemble.metrics import Metric
from densemble.shapes import Size
from densemble.tasks import Task

Scores = dict[str, Any]


def default_split(data: FolderData) -> str:
    """``test`` where there is one, else ``val``."""
    return "test" if data.layout.splits.get("test") else "val"


def _score(metric: Metric, maps: Tensor, target: Tensor, points: Tensor | None) -> None:
    """Adds one picture's map ``(1, K, h, w)``, resized (bilinear) to the target's own size."""
    size: Size = (int(target.shape[-2]), int(target.shape[-1]))
    if maps.shape[-2:] != size:
        maps = F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
    metric.update(maps[0].cpu(), target, points)


def _truths(data: FolderData, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Tensor, Tensor | None]]:
    for sample in samples:
        points = data.read_points(sample)
        target = torch.from_numpy(data.read_target(sample))
        yield sample, target, None if points is None else torch.from_numpy(points)


@torch.no_grad()
def evaluate(
    ensemble: Ensemble, data: FolderData, split: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Scores:
    """Scores of an ensemble and of each of its members, at the maps' own size.

    Args:
        ensemble: in eval mode.
        data: pictures and maps for the same task.
        split: ``train``, ``val`` or ``test``; default ``test`` where there is one, else ``val``.
        progress: called with (done, all) after every picture.

    Returns:
        ``{"task", "split", "images", METRIC: value..., "members": {name: {METRIC: value...}}}``.

    Raises:
        DataError: no such split, or files that cannot be used.
    """
    split = split or default_split(data)
    samples = data.split(split)
    task = ensemble.task
    whole, single = task.metrics(), {name: task.metrics() for name in ensemble.members}
    device = next(ensemble.parameters()).device
    for done, (sample, target, points) in enumerate(_truths(data, samples)):
        rule = COMBINE[ensemble.combine]()
        for name, maps in ensemble.member_maps(as_images(data.read_image(sample)).to(device)):
            rule.add(maps, ensemble.weights[name])
            _score(single[name], maps, target, points)
        _score(whole, rule.result(), target, points)
        if progress is not None:
            progress(done + 1, len(samples))
    members = {name: metric.compute() for name, metric in single.items()}
    return {"task": task.name, "split": split, "images": len(samples), **whole.compute(), "members": members}


@torch.no_grad()
def predict_split(
    model: torch.nn.Module, task: Task, data: FolderData, split: str, map_size: Size
) -> tuple[np.ndarray[Any, Any], Scores]:
    """One member's activated maps on a split, fp16 ``(N, K, h, w)``, and its scores at the maps' own size."""
    samples = data.split(split)
    metric = task.metrics()
    kept = np.empty((len(samples), task.out_channels, *map_size), dtype=np.float16)
    device = next(model.parameters()).device
    for number, (sample, target, points) in enumerate(_truths(data, samples)):
        maps = task.activation(model(as_images(data.read_image(sample)).to(device)).float())
        _score(metric, maps, target, points)
        if maps.shape[-2:] != map_size:
            maps = F.interpolate(maps, size=map_size, mode="bilinear", align_corners=False, antialias=True)
        kept[number] = maps[0].cpu().numpy()
    return kept, metric.compute()


def score_mixture(
    predictions: Sequence[np.ndarray[Any, Any]],
    weights: Sequence[float],
    task: Task,
    targets: Sequence[Tensor],
    points: Sequence[Tensor | None] | None = None,
) -> Scores:
    """Scores of a weighted mean of cached predictions ``(N, K, h, w)`` against targets ``(H, W)`` of any size."""
    metric = task.metrics()
    taken = [(maps, weight) for maps, weight in zip(predictions, weights, strict=True) if weight > 0]
    size = taken[0][0].shape[-2:]
    for number, target in enumerate(targets):
        mean = torch.zeros(1, *taken[0][0].shape[1:])
        for maps, weight in taken:
            own = torch.from_numpy(np.array(maps[number], dtype=np.float32))[None]
            if own.shape[-2:] != size:
                own = F.interpolate(own, size=size, mode="bilinear", align_corners=False)
            mean += weight * own
        _score(metric, mean, target, points[number] if points is not None else None)
    return metric.compute()
