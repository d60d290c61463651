"""Score and time of several methods over the same images of a split."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from densemble.ensemble.resize import resize_to_target
from densemble.evaluation.benchmark.interleave import Method, in_turn, timed
from densemble.evaluation.scores import ImageWithTarget, Scores
from densemble.shapes import Size, size_of
from densemble.tasks import Task


@dataclass(frozen=True)
class MethodScore:
    """What one method is worth on a split.

    Attributes:
        scores: by metric.
        seconds: of each image's maps, without reading the image, and resizing and scoring the map.
    """

    scores: Scores
    seconds: list[float]

    def times_as_fast(self, baseline: "MethodScore") -> float:
        """Another method's time for all images divided by this one's."""
        return sum(baseline.seconds) / sum(self.seconds)


def score_methods(
    methods: Mapping[str, Method],
    task: Task,
    examples: Iterable[ImageWithTarget],
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, MethodScore]:
    """Every image by every method in turn; maps are resized (bilinear) to the target's size and scored.

    Args:
        methods: by name.
        task: what the maps mean.
        examples: see :func:`densemble.evaluation.scores.images_with_targets`.
        device: of the methods.
        progress: called with the number of images done.
    """
    metrics = {name: task.metrics() for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    warm: set[Size] = set()
    for number, (images, target, points) in enumerate(examples):
        images = images.to(device)
        size = size_of(images)
        if size not in warm:  # a fast ensemble is tuned at the first image of a shape
            for method in methods.values():
                timed(method, images)
            warm.add(size)
        for name in in_turn(methods, number):
            taken, maps = timed(methods[name], images)
            seconds[name].append(taken)
            metrics[name].update(resize_to_target(maps.float(), target, task)[0].cpu(), target, points)
        progress(number + 1)
    return {name: MethodScore(metrics[name].compute(), seconds[name]) for name in methods}
