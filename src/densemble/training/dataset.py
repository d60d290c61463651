"""Decoded samples as a stream of batches whose order and augmentation follow from (seed, epoch, index) alone."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from densemble.data.decoded_cache import DecodedSplit, unit
from densemble.data.targets import resize_target
from densemble.data.transforms import Augmentation, augment
from densemble.shapes import Size
from densemble.tasks.task import TargetKind

AHEAD = 2
"""Batches that a thread prepares while a step is computed."""


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index); shuffled anew in every epoch where a seed is given, and dealt out among processes.

    Args:
        length: number of samples.
        seed: of the order; ``None``: in order, and all of them in every process.
        batch_size: of a training; a last batch of a single sample is left out, for batch normalization cannot work on
            it.
    """

    def __init__(self, length: int, seed: int | None, batch_size: int | None = None) -> None:
        self.length = length
        self.seed = seed
        self.batch_size = batch_size
        self.epoch = 0

    @property
    def _share(self) -> tuple[int, int]:
        """Rank and number of the processes that train together, asked when it is needed: they start later."""
        if self.seed is None or not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        length = self.length // self._share[1]  # equally many for each, or the others would wait for ever
        single = self.batch_size is not None and length % self.batch_size == 1 and length > self.batch_size
        return length - 1 if single else length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.seed is not None:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        rank, world = self._share
        mine = order[rank::world][: len(self)]
        return ((self.epoch, int(index)) for index in mine)


class DecodedSamples(Dataset[tuple[Tensor, Tensor]]):
    """Images float ``(C, H, W)`` in [0, 1] and targets ``(h, w)`` or ``(K, h, w)`` of a decoded split.

    Image and map are moved at the image's size; the map is resized to ``target_size`` afterwards.
    """

    def __init__(
        self, split: DecodedSplit, target_size: Size, kind: TargetKind, fill: float, how: Augmentation, seed: int
    ) -> None:
        self.split = split
        self.target_size = target_size
        self.kind = kind
        self.fill = fill
        self.how = how
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = unit(self.split.images[index])
        target = read_target(self.split, index)
        image, target = augment(image, target, self.how, (self.seed, epoch, index), self.kind, self.fill)
        return image, resize_target(target, self.target_size, self.kind)


def read_target(split: DecodedSplit, index: int) -> Tensor:
    """The map ``(h, w)`` or ``(K, h, w)`` of a sample."""
    target = torch.from_numpy(np.array(split.targets[index]))
    return target.int() if target.dtype == torch.uint16 else target  # torch cannot index or compare 16-bit labels


def batches(
    samples: Dataset[Any],
    sampler: EpochSampler,
    batch_size: int,
    workers: int = 0,
    pinned: bool = False,
) -> DataLoader[Any]:
    """Batches of what ``samples`` gives.

    Args:
        samples: indexed by the keys of ``sampler``.
        sampler: with a seed and the size of batches in training.
        batch_size: samples in a batch.
        workers: processes; 0: a thread of this process prepares batches while steps are computed.
        pinned: keep batches where a GPU can fetch them asynchronously.
    """
    kind = ThreadedLoader if workers == 0 else DataLoader
    return kind(
        samples,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        timeout=600 if workers > 0 else 0,  # the default waits for ever for a worker that was killed
        pin_memory=pinned,
    )


class ThreadedLoader(DataLoader[Any]):
    """A DataLoader without worker processes whose batches are prepared by a thread, at most ``AHEAD`` of them."""

    def __iter__(self) -> Any:
        return _ahead(super().__iter__())


def _ahead(source: Iterator[Any]) -> Iterator[Any]:
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=AHEAD)
    stopped = threading.Event()

    def wanted() -> bool:
        return not stopped.is_set() and threading.main_thread().is_alive()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while wanted():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in source:
                put((batch, None))
                if not wanted():
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed to the reader, who raises it
            put((None, error))

    # A daemon would be torn out of torch's code when the program ends, which aborts the process: this one is awaited.
    thread = threading.Thread(target=work, name="batches")
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield batch
    finally:
        stopped.set()
        thread.join(timeout=5)
