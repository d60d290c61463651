"""Held-out images as guarantees are fitted and checked on them."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from densemble.ensemble.resize import resize_maps
from densemble.tasks import Task

Images = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives, each time it is called, every image's combined activated map ``(K, h, w)`` and its target of any size.

For intervals that follow the members' spread: value and variance, ``(2, h, w)``.
"""


def observations(images: Images, task: Task) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Map ``(1, K, H, W)`` at the target's size, the ideal map ``(K, H, W)`` and where that is valid, one by one."""
    for maps, target in images():
        size = (int(target.shape[-2]), int(target.shape[-1]))
        ideal, valid = task.as_maps(target)
        yield resize_maps(maps[None].float(), size, task.target_kind == "density"), ideal, valid
