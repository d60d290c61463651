"""Batches of decoded samples; order and augmentation depend on (seed, epoch, index) alone."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from densemble.data.decoded_cache import DecodedSplit, unit
from densemble.data.targets import resize_target
from densemble.data.transforms import Augmentation, augment
from densemble.shapes import Size
from densemble.tasks.task import TargetKind
from densemble.threads import is_started
from densemble.training.batch_stream import BatchStream
from densemble.training.loader_workers import warn_without_workers

AHEAD = 2
"""Number of batches that the loader thread prepares in advance."""


@dataclass(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """Sampler of keys (epoch, index). With a seed, it shuffles every epoch and splits the keys over the processes.

    Args:
        length: number of samples.
        seed: seed of the order; ``None`` keeps the order and gives every process all samples.
        batch_size: batch size of a training. The sampler drops a last batch of a single sample, because batch
            normalization cannot work on it.
        skipped: epoch, and number of its first samples that an interrupted training has used.
    """

    length: int
    seed: int | None
    batch_size: int | None = None
    epoch: int = 0
    skipped: tuple[int, int] = (0, 0)

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        """Rank of this process and number of processes; read on every use, because they start after construction."""
        if self.seed is None or not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        length = self.length // self._rank_and_world[1]  # equal shares: the processes wait for each other at every step
        drops_last = self.batch_size is not None and length % self.batch_size == 1 and length > self.batch_size
        return length - 1 if drops_last else length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.seed is not None:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        rank, world = self._rank_and_world
        first = self.skipped[1] if self.epoch == self.skipped[0] else 0
        return ((self.epoch, int(index)) for index in order[rank::world][first : len(self)])


@dataclass(frozen=True, eq=False)
class Samples(Dataset[Any]):
    """Samples of a decoded split with targets resized to ``target_size``."""

    split: DecodedSplit
    target_size: Size
    kind: TargetKind

    def __len__(self) -> int:
        return len(self.split)


@dataclass(frozen=True, eq=False)
class DecodedSamples(Samples):
    """Augmented images float ``(C, H, W)`` in [0, 1] and targets ``(h, w)`` or ``(K, h, w)`` of a decoded split.

    Image and target are augmented together at the image size; then the target is resized to ``target_size``.
    """

    fill: float
    augmentation: Augmentation
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = unit(self.split.images[index])
        target = read_target(self.split, index)
        image, target = augment(image, target, self.augmentation, (self.seed, epoch, index), self.kind, self.fill)
        return image, resize_target(target, self.target_size, self.kind)


@dataclass(frozen=True, eq=False)
class DeviceSamples(DecodedSamples):
    """The same samples, augmented on a GPU; a batch is copied there as bytes."""

    device: torch.device

    @classmethod
    def of(cls, samples: DecodedSamples, device: torch.device) -> Self:
        """Return samples that are augmented on a device."""
        return cls(**{part.name: getattr(samples, part.name) for part in fields(samples)}, device=device)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
        indices = np.array([index for _, index in keys])
        images = unit(self._copied(torch.from_numpy(self.split.images[indices])))
        targets = self._copied(as_target(torch.from_numpy(self.split.targets[indices])))
        samples = []
        for key, image, target in zip(keys, images, targets, strict=True):
            change = (self.seed, *key)
            image, target = augment(image, target, self.augmentation, change, self.kind, self.fill)
            samples.append((image, resize_target(target, self.target_size, self.kind)))
        return samples

    def _copied(self, values: Tensor) -> Tensor:
        pinned = values.pin_memory() if self.device.type == "cuda" else values
        return pinned.to(self.device, non_blocking=True)


def read_target(split: DecodedSplit, index: int) -> Tensor:
    """Return the target ``(h, w)`` or ``(K, h, w)`` of a sample."""
    return as_target(torch.from_numpy(np.array(split.targets[index])))


def as_target(values: Tensor) -> Tensor:
    """Return stored targets in a data type that losses can use: torch cannot index or compare uint16."""
    return values.int() if values.dtype == torch.uint16 else values


def batches(
    samples: Dataset[Any],
    sampler: EpochSampler,
    batch_size: int,
    workers: int = 0,
    pinned: bool = False,
) -> DataLoader[Any]:
    """Return a loader that batches ``samples``.

    Args:
        samples: data set indexed by the keys of ``sampler``.
        sampler: for training, with a seed and the batch size.
        batch_size: samples per batch.
        workers: number of loader processes; with 0 a thread of this process prepares the batches.
        pinned: keep batches in pinned memory, from which a GPU copies asynchronously.
    """
    return ThreadedLoader(
        samples,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        timeout=600 if workers > 0 else 0,  # by default, the loader waits forever for a worker that was killed
        pin_memory=pinned,
        generator=_LoaderGenerator(),  # each iterator draws a number, which must not change those of the training
    )


class _LoaderGenerator(torch.Generator):
    """Generator that is sent to another process without its state, which no sample depends on.

    The state would be sent in shared memory that is gone when the process starts.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _LoaderGenerator, ()


class ThreadedLoader(DataLoader[Any]):
    """DataLoader that prepares ``AHEAD`` batches in a thread if it has no worker processes or cannot start them.

    On a GPU, the thread computes on a stream of its own, beside the steps of the training.
    """

    def __iter__(self) -> Any:
        if self.num_workers:
            try:
                return super().__iter__()
            except (OSError, RuntimeError) as error:  # no more processes, threads, or shared memory
                warn_without_workers(self.num_workers, str(error))
                self.num_workers, self.timeout = 0, 0
        return _prefetch(super().__iter__())


def _prefetch(source: Iterator[Any]) -> Iterator[Any]:
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=AHEAD)
    stream, stopped = BatchStream(), threading.Event()

    def is_reading() -> bool:
        return not stopped.is_set() and threading.main_thread().is_alive()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while is_reading():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in stream.prepared(source):
                put((batch, None))
                if not is_reading():
                    return
            put((None, StopIteration()))
        except BaseException as error:  # the reader raises it
            put((None, error))

    # Not a daemon: the interpreter would kill a daemon inside torch at exit, which aborts the process.
    thread = threading.Thread(target=work, name="batches")
    if not is_started(thread):
        yield from source
        return
    try:
        while True:
            batch, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield stream.taken(batch)
    finally:
        stopped.set()
        thread.join(timeout=5)
