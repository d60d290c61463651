"""Score and time of several methods on the same images of a split."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from densemble.evaluation.benchmark.interleave import Method, round_order, timed
from densemble.evaluation.scores import ImageWithTarget, Scores, update_metric
from densemble.shapes import Size, size_of
from densemble.tasks import Task


@dataclass(frozen=True)
class MethodScore:
    """Score and time of one method on a split.

    Attributes:
        scores: scores by metric.
        seconds: time to compute the map of each image, without reading the image and scoring the map.
    """

    scores: Scores
    seconds: list[float]

    def times_as_fast(self, baseline: "MethodScore") -> float:
        """Return the time of another method for all images divided by the time of this one."""
        return sum(baseline.seconds) / sum(self.seconds)


def score_methods(
    methods: Mapping[str, Method],
    task: Task,
    examples: Iterable[ImageWithTarget],
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, MethodScore]:
    """Run every method on every image, in turn; maps are resized (bilinear) to the size of the target and scored.

    Args:
        methods: methods by name.
        task: meaning of the maps.
        examples: see :func:`densemble.evaluation.scores.images_with_targets`.
        device: device of the methods.
        progress: called with the number of finished images.
    """
    metrics = {name: task.metrics() for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    warm: set[Size] = set()
    for number, (images, target, points) in enumerate(examples):
        images = images.to(device)
        size = size_of(images)
        if size not in warm:  # a fast ensemble is tuned at the first image of a size
            for method in methods.values():
                timed(method, images)
            warm.add(size)
        for name in round_order(methods, number):
            taken, maps = timed(methods[name], images)
            seconds[name].append(taken)
            update_metric(metrics[name], task, maps, target, points)
        progress(number + 1)
    return {name: MethodScore(metrics[name].compute(), seconds[name]) for name in methods}
