"""A network that is tuned for the shapes it meets: normalized images in, logits of one or several members out."""

import time
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from densemble.inference.backends.base import as_list
from densemble.inference.execution import Execution, Tuned
from densemble.shapes import Size

Build = Callable[[Size, Size | None], nn.Module]
"""((H, W) of the normalized images, where the head's steps stop or ``None``) -> network."""


class TunedNetwork:
    """Runs on a chosen backend for batches of the shapes that it was tuned for.

    Other batches of a tuned image size are cut or filled up to a tuned number of images; anything else runs eagerly,
    or is tuned when it comes, as the execution has it.

    Args:
        name: that it is told of by.
        build: makes the network.
        execution: how networks are run.
        members: that it answers for; of several, the answers to the last images are kept until others come.
    """

    def __init__(self, name: str, build: Build, execution: Execution, members: int = 1) -> None:
        self.name, self.build, self.execution, self.members = name, build, execution, members
        self.tuned: dict[tuple[int, ...], list[Tuned]] = {}
        """By (C, H, W) of the images; the most images first."""
        self._built: dict[tuple[Size, Size | None], nn.Module] = {}
        self._images: Callable[[], Tensor | None] = lambda: None
        self._answers: tuple[Size, list[Tensor]] | None = None

    def grids(self, normalized: Tensor, wanted: Size) -> list[Tensor]:
        """Normalized images ``(B, C, H, W)`` -> logits ``(B, K, h, w)`` of each member for maps of a size."""
        if self.members == 1:
            return self._run(normalized, wanted)
        if self._images() is not normalized or self._answers is None or self._answers[0] != wanted:
            self._images, self._answers = weakref.ref(normalized), (wanted, self._run(normalized, wanted))
        return self._answers[1]

    def _run(self, normalized: Tensor, wanted: Size) -> list[Tensor]:
        usable = [one for one in self.tuned.get(tuple(normalized.shape[1:]), []) if one.serves(wanted)]
        if not usable and self.execution.always:
            usable = [self._tune(normalized, wanted)]
        elif not usable:
            started = time.perf_counter()
            found = self._eagerly(normalized, wanted)
            if self.execution.worth(len(normalized), time.perf_counter() - started):
                self._tune(normalized, wanted)
            return found
        if usable[0].batch == len(normalized):
            return usable[0].runner(normalized)
        return _in_parts(normalized, usable)

    def _eagerly(self, normalized: Tensor, wanted: Size) -> list[Tensor]:
        network = self._network(_size(normalized), wanted)
        return as_list(network(normalized.contiguous(memory_format=torch.channels_last)))

    def _network(self, seen: Size, stops_at: Size | None) -> nn.Module:
        if self.members == 1:
            return self.build(seen, stops_at)
        if (seen, stops_at) not in self._built:
            self._built[seen, stops_at] = self.build(seen, stops_at)
        return self._built[seen, stops_at]

    def _tune(self, normalized: Tensor, wanted: Size) -> Tuned:
        seen = _size(normalized)
        found = self.execution.tune(self.name, lambda size: self._network(seen, size), normalized, wanted)
        row = self.tuned.setdefault(tuple(normalized.shape[1:]), [])
        row.append(found)
        row.sort(key=lambda one: -one.batch)
        return found


def _in_parts(normalized: Tensor, tuned: Sequence[Tuned]) -> list[Tensor]:
    """Any number of images through runners of fixed numbers, the last part filled up with its last image."""
    parts, start = [], 0
    while start < len(normalized):
        left = len(normalized) - start
        one = next((one for one in tuned if one.batch <= left), tuned[-1])
        part = normalized[start : start + one.batch]
        missing = one.batch - len(part)
        if missing > 0:
            part = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)])
        parts.append([grid[: one.batch - missing] for grid in one.runner(part.contiguous())])
        start += one.batch - missing
    return [torch.cat(grids) for grids in zip(*parts, strict=True)]


def _size(images: Tensor) -> Size:
    return int(images.shape[-2]), int(images.shape[-1])
