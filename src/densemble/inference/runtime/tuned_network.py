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
from densemble.inference.runtime.execution import Execution, LowResNetwork, TunedRunner
from densemble.inference.runtime.multi_output import MultiOutputNetwork
from densemble.inference.runtime.per_batch_cache import PerBatchCache
from densemble.inference.runtime.shared_compilation import SharedCompilation
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference
from densemble.nets.sharing import share
from densemble.shapes import Size, size_of

MOST_SHAPES = 4
"""Most shapes that a network is tuned for as images come: each of them holds the weights once more."""
_TUNING = threading.RLock()
"""Networks are converted one after the other: torch.export keeps its state for all threads."""


class RewrittenMembers:
    """Members as one network, rewritten for inference when it is first needed, and again after :meth:`drop`.

    Args:
        members: not changed.
    """

    def __init__(self, members: Sequence[DenseModel]) -> None:
        self.members = members
        self._models: list[DenseModel] = []
        self._networks: dict[tuple[Size, Size | None], nn.Module] = {}
        self._lock = threading.RLock()

    def network(self, input_size: Size, stops_at: Size | None) -> nn.Module:
        """The network for normalized images of a size; the steps of its heads stop at ``stops_at``."""
        with self._lock:
            if not self._models:
                self._models = [for_inference(member).to(memory_format=torch.channels_last) for member in self.members]
            key = (input_size if len(self._models) > 1 else (0, 0), stops_at)
            if key not in self._networks:
                networks = [LowResNetwork(model.backbone, model.head, stops_at) for model in self._models]
                shared = share(self._models, input_size, stops_at) if len(networks) > 1 else networks[0]
                self._networks[key] = shared or MultiOutputNetwork(networks)
            return self._networks[key]

    def drop(self) -> None:
        """Release the rewritten weights."""
        with self._lock:
            self._models, self._networks = [], {}


class TunedNetwork:
    """Runs on a selected backend for batches of the shapes that it was tuned for.

    Batches of a tuned image size are split or padded to a tuned number of images. Other batches run eagerly or are
    tuned for when they come, as the execution says.

    Args:
        members: one, or several with a common first part, whose logits are then cached for the batch.
        execution: how networks are run.
        cache: shared by the networks of an ensemble.
        compilation: of the networks that see the same images; ``None``: the network is compiled separately.
    """

    def __init__(
        self,
        members: Sequence[DenseModel],
        execution: Execution,
        cache: PerBatchCache,
        compilation: SharedCompilation | None = None,
    ) -> None:
        self.name, self.execution = " + ".join(member.spec.backbone for member in members), execution
        self.tuned: dict[tuple[int, ...], list[TunedRunner]] = {}
        """Runners by (C, H, W) of the images, the largest batch first."""
        self._met: Counter[tuple[int, ...]] = Counter()
        self._rewritten = RewrittenMembers(members)
        self._cache, self._compilation = cache, compilation

    def __reduce__(self) -> tuple[Any, ...]:
        """A copied or unpickled network is tuned again: compiled networks belong to their process."""
        return type(self), (self._rewritten.members, self.execution, self._cache, self._compilation)

    def grids(self, normalized: Tensor, map_size: Size) -> list[Tensor]:
        """Normalized images ``(B, C, H, W)`` -> logits ``(B, K, h, w)`` of each member for maps of a size."""
        if len(self._rewritten.members) == 1:
            return self._run(normalized, map_size)
        return self._cache.get(normalized, ("logits", id(self), map_size), lambda: self._run(normalized, map_size))

    def _usable(self, normalized: Tensor, map_size: Size) -> list[TunedRunner]:
        return [tuned for tuned in self.tuned.get(tuple(normalized.shape[1:]), []) if tuned.serves(map_size)]

    def _run(self, normalized: Tensor, map_size: Size) -> list[Tensor]:
        usable = self._usable(normalized, map_size)
        if not usable and self.execution.always:
            with _TUNING:  # another thread may have tuned it meanwhile
                usable = self._usable(normalized, map_size) or [self._tune(normalized, map_size)]
        elif not usable:
            started = time.perf_counter()
            logits = self._eagerly(normalized, map_size)
            with _TUNING:
                worth = self._worth(normalized, time.perf_counter() - started)
                if worth and not self._usable(normalized, map_size):
                    self._tune(normalized, map_size, ran=True)
            return logits
        if usable[0].batch == len(normalized):
            return usable[0].runner(normalized)
        return self._in_parts(normalized, usable)

    def _in_parts(self, normalized: Tensor, usable: Sequence[TunedRunner]) -> list[Tensor]:
        """Any number of images by runners of fixed batch sizes; the last part is padded with its last image."""
        parts, start = [], 0
        while start < len(normalized):
            left = len(normalized) - start
            tuned = next((tuned for tuned in usable if tuned.batch <= left), usable[-1])
            end = start + tuned.batch
            part = self._cache.get(normalized, ("part", start, end), partial(_padded_part, normalized, start, end))
            parts.append([logits[: min(left, tuned.batch)] for logits in tuned.runner(part)])
            start = end
        return [torch.cat(logits) for logits in zip(*parts, strict=True)]

    def _worth(self, normalized: Tensor, seconds: float) -> bool:
        """Whether to tune for a shape: for the first one, and for later ones that come again, up to MOST_SHAPES."""
        shape = tuple(normalized.shape[1:])
        again = shape in self._met or not self._met
        self._met[shape] += len(normalized)
        share = self._met[shape] / self._met.total()
        few = shape in self.tuned or len(self.tuned) < MOST_SHAPES
        return again and few and self.execution.worth(len(normalized), seconds, share, normalized.device.type)

    def _eagerly(self, normalized: Tensor, map_size: Size) -> list[Tensor]:
        network = self._rewritten.network(size_of(normalized), map_size)
        return as_list(network(normalized.contiguous(memory_format=torch.channels_last)))

    def _tune(self, normalized: Tensor, map_size: Size, ran: bool = False) -> TunedRunner:
        build = partial(self._rewritten.network, size_of(normalized))
        tuned = self.execution.tune(self.name, build, normalized, map_size, shared=self._compilation is not None)
        if not BACKENDS[tuned.choice.backend].runs_network:
            self._rewritten.drop()
        if self._compilation is not None:
            spec = self._rewritten.members[0].spec
            key = (tuple(normalized.shape), spec.mean, spec.std)
            tuned = self._compilation.add(tuned, len(self._rewritten.members), key, ran)
        shape = tuple(normalized.shape[1:])
        self.tuned[shape] = sorted([*self.tuned.get(shape, []), tuned], key=lambda runner: -runner.batch)
        return tuned


def padded_batch(images: Tensor, batch: int) -> Tensor:
    """At most ``batch`` images, padded with copies of the last one to exactly ``batch``."""
    missing = batch - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images


def _padded_part(images: Tensor, start: int, end: int) -> Tensor:
    return padded_batch(images[start:end], end - start).contiguous()
