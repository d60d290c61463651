"""PerBatchCache: what several networks would compute again from the same batch of images."""

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class PerBatchCache(threading.local):
    """Values computed from the last batch of images; each thread has its own, and so has a copy of the cache.

    A batch is one tensor object at one version: images that are written into the same tensor are another batch. A
    tensor among the cached values (resized images, a part of the batch) belongs to the batch that it came from.
    """

    def __init__(self) -> None:
        self._batch: Callable[[], Tensor | None] = lambda: None
        self._version: int | None = None
        self._values: dict[tuple[int, Hashable], Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def get(self, images: Tensor, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of ``key`` for these images, computed at the first call."""
        if not self._is_current(images):
            self._batch, self._values = weakref.ref(images), {}
            self._version = _version(images)
        values, place = self._values, (id(images), key)
        if place not in values:
            values[place] = compute()
        value: Value = values[place]
        return value

    def _is_current(self, images: Tensor) -> bool:
        if self._batch() is images:
            return self._version == _version(images)
        return any(value is images for value in self._values.values())


def _version(images: Tensor) -> int | None:
    """How often the tensor was written to; tensors of inference mode do not count it."""
    return None if images.is_inference() else images._version
