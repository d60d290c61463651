"""Held-out images for fitting and checking guarantees."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from densemble.ensemble.resize import resize_to_target
from densemble.tasks import Task

Images = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Called for every pass: yields the combined activated map ``(K, h, w)`` and the target, of any size, of each image.

For intervals that depend on the variance over the members, the map holds value and variance, ``(2, h, w)``.
"""


def observations(images: Images, task: Task) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Iterate over maps ``(1, K, H, W)`` at the target's size, ideal maps ``(K, H, W)`` and their valid pixels."""
    for maps, target in images():
        ideal, valid = task.as_maps(target)
        yield resize_to_target(maps[None].float(), target, task), ideal, valid
