"""A network that is tuned for the shapes it meets: normalized images in, logits of one or several members out."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from densemble.inference.runtime.backends import BACKENDS
from densemble.inference.runtime.backends.backend import as_list
from densemble.inference.runtime.execution import Execution, Grid, Tuned
from densemble.inference.runtime.multi_output import Joined
from densemble.inference.runtime.per_batch_cache import PerBatchCache
from densemble.inference.runtime.shared_compilation import Together
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference
from densemble.nets.sharing import share
from densemble.shapes import Size

MOST_SHAPES = 4
"""That a network is tuned for as images come: each of them holds the weights once more."""
_TUNING = threading.RLock()
"""Networks are converted one after the other: torch.export keeps its state for all threads."""


class Rewritten:
    """Members as one network of as many outputs, rewritten for inference: made when needed, and made anew after
    :meth:`drop`.

    Args:
        members: left as they are.
    """

    def __init__(self, members: Sequence[DenseModel]) -> None:
        self.members = members
        self._models: list[DenseModel] = []
        self._networks: dict[tuple[Size, Size | None], nn.Module] = {}
        self._lock = threading.RLock()

    def network(self, seen: Size, stops_at: Size | None) -> nn.Module:
        """The network for normalized images of a size, its heads' steps stopping at a size."""
        with self._lock:
            return self._made(seen, stops_at)

    def _made(self, seen: Size, stops_at: Size | None) -> nn.Module:
        if not self._models:
            self._models = [for_inference(own).to(memory_format=torch.channels_last) for own in self.members]
        key = (seen if len(self._models) > 1 else (0, 0), stops_at)
        if key not in self._networks:
            grids = [Grid(model.backbone, model.head, stops_at) for model in self._models]
            shared = share(self._models, seen, stops_at) if len(grids) > 1 else grids[0]
            self._networks[key] = shared or Joined(grids)
        return self._networks[key]

    def drop(self) -> None:
        """Lets go of the rewritten weights."""
        with self._lock:
            self._models, self._networks = [], {}


class TunedNetwork:
    """Runs on a chosen backend for batches of the shapes that it was tuned for.

    Other batches of a tuned image size are cut or filled up to a tuned number of images; anything else runs eagerly,
    or is tuned when it comes, as the execution has it.

    Args:
        members: one, or several with a shared beginning, whose logits are then cached for the batch.
        execution: how networks are run.
        cache: shared by the networks of an ensemble.
        together: of the networks that see the same images; ``None``: it runs by itself.
    """

    def __init__(
        self,
        members: Sequence[DenseModel],
        execution: Execution,
        cache: PerBatchCache,
        together: Together | None = None,
    ) -> None:
        self.name, self.execution = " + ".join(member.spec.backbone for member in members), execution
        self.tuned: dict[tuple[int, ...], list[Tuned]] = {}
        """By (C, H, W) of the images; the most images first."""
        self._met: Counter[tuple[int, ...]] = Counter()
        self._rewritten = Rewritten(members)
        self._cache, self._together = cache, together

    def __reduce__(self) -> tuple[Any, ...]:
        """A copied or unpickled network is tuned anew: compiled networks belong to their process."""
        return type(self), (self._rewritten.members, self.execution, self._cache, self._together)

    def grids(self, normalized: Tensor, wanted: Size) -> list[Tensor]:
        """Normalized images ``(B, C, H, W)`` -> logits ``(B, K, h, w)`` of each member for maps of a size."""
        if len(self._rewritten.members) == 1:
            return self._run(normalized, wanted)
        return self._cache.get(normalized, ("logits", id(self), wanted), lambda: self._run(normalized, wanted))

    def _usable(self, normalized: Tensor, wanted: Size) -> list[Tuned]:
        return [one for one in self.tuned.get(tuple(normalized.shape[1:]), []) if one.serves(wanted)]

    def _run(self, normalized: Tensor, wanted: Size) -> list[Tensor]:
        usable = self._usable(normalized, wanted)
        if not usable and self.execution.always:
            with _TUNING:  # another thread may have tuned it meanwhile
                usable = self._usable(normalized, wanted) or [self._tune(normalized, wanted)]
        elif not usable:
            started = time.perf_counter()
            found = self._eagerly(normalized, wanted)
            with _TUNING:
                worth = self._worth(normalized, time.perf_counter() - started)
                if worth and not self._usable(normalized, wanted):
                    self._tune(normalized, wanted, ran=True)
            return found
        if usable[0].batch == len(normalized):
            return usable[0].runner(normalized)
        return self._in_parts(normalized, usable)

    def _in_parts(self, normalized: Tensor, tuned: Sequence[Tuned]) -> list[Tensor]:
        """Any number of images through runners of fixed numbers, the last part filled up with its last image."""
        parts, start = [], 0
        while start < len(normalized):
            left = len(normalized) - start
            one = next((one for one in tuned if one.batch <= left), tuned[-1])
            key = ("part", start, one.batch)
            part = self._cache.get(normalized, key, partial(_part, normalized, start, one.batch))
            parts.append([grid[: min(left, one.batch)] for grid in one.runner(part)])
            start += one.batch
        return [torch.cat(grids) for grids in zip(*parts, strict=True)]

    def _worth(self, normalized: Tensor, seconds: float) -> bool:
        """Whether to tune for a shape: the first one that comes, and later ones when they come again; not many."""
        shape = tuple(normalized.shape[1:])
        again = shape in self._met or not self._met
        self._met[shape] += len(normalized)
        share = self._met[shape] / self._met.total()
        few = shape in self.tuned or len(self.tuned) < MOST_SHAPES
        return again and few and self.execution.worth(len(normalized), seconds, share)

    def _eagerly(self, normalized: Tensor, wanted: Size) -> list[Tensor]:
        network = self._rewritten.network(_size(normalized), wanted)
        return as_list(network(normalized.contiguous(memory_format=torch.channels_last)))

    def _tune(self, normalized: Tensor, wanted: Size, ran: bool = False) -> Tuned:
        seen = _size(normalized)
        found = self.execution.tune(
            self.name,
            lambda size: self._rewritten.network(seen, size),
            normalized,
            wanted,
            joined=self._together is not None,
        )
        if not BACKENDS[found.choice.backend].runs_network:
            self._rewritten.drop()
        if self._together is not None:
            spec = self._rewritten.members[0].spec
            key = (tuple(normalized.shape), spec.mean, spec.std)
            found = self._together.seat(found, len(self._rewritten.members), key, ran)
        row = [*self.tuned.get(tuple(normalized.shape[1:]), []), found]
        self.tuned[tuple(normalized.shape[1:])] = sorted(row, key=lambda one: -one.batch)
        return found


def _part(images: Tensor, start: int, count: int) -> Tensor:
    """``images[start : start + count]``, filled up with the last one."""
    part = images[start : start + count]
    missing = count - len(part)
    filled = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part
    return filled.contiguous()


def _size(images: Tensor) -> Size:
    return int(images.shape[-2]), int(images.shape[-1])
