"""PerBatchCache: values that several networks need from the same batch of images, computed once."""

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class PerBatchCache(threading.local):
    """Values computed from the last batch of images. Each thread and each copy of the cache has separate values.

    A batch is one tensor object at one version: writing other images into the same tensor makes another batch. Tensors
    among the cached values (resized images, a part of the batch) count as the batch that they were computed from.
    """

    def __init__(self) -> None:
        self._batch: Callable[[], Tensor | None] = lambda: None
        self._version: int | None = None
        self._values: dict[tuple[int, Hashable], Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def get(self, images: Tensor, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of ``key`` for these images; the first call computes it."""
        if not self._is_current(images):
            self._batch, self._values = weakref.ref(images), {}
            self._version = _version(images)
        values, full_key = self._values, (id(images), key)
        if full_key not in values:
            values[full_key] = compute()
        value: Value = values[full_key]
        return value

    def _is_current(self, images: Tensor) -> bool:
        if self._batch() is images:
            return self._version == _version(images)
        return any(value is images for value in self._values.values())


def _version(images: Tensor) -> int | None:
    """Number of in-place writes to the tensor; ``None`` for inference tensors, which do not count them."""
    return None if images.is_inference() else images._version
