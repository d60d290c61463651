"""Decoded samples as a stream of batches whose order and augmentation follow from (seed, epoch, index) alone."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from densemble.data.cache import DecodedSplit
from densemble.data.transforms import Augmentation, augment


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index); shuffled anew in every epoch where a seed is given."""

    def __init__(self, length: int, seed: int | None) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.seed is not None:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        return ((self.epoch, int(index)) for index in order)


class DecodedSamples(Dataset[tuple[Tensor, Tensor]]):
    """Images float ``(3, H, W)`` in [0, 1] and targets ``(h, w)`` of a decoded split."""

    def __init__(self, split: DecodedSplit, how: Augmentation, seed: int, fill: float) -> None:
        self.split = split
        self.how = how
        self.seed = seed
        self.fill = fill

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = torch.from_numpy(np.array(self.split.images[index])).float() / 255
        target = torch.from_numpy(np.array(self.split.targets[index]))
        return augment(image, target, self.how, (self.seed, epoch, index), self.fill)


def batches(
    split: DecodedSplit, how: Augmentation, batch_size: int, fill: float, seed: int = 0, shuffled: bool = False
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of images ``(B, 3, H, W)`` and targets ``(B, h, w)``.

    A last batch of a single sample is left out of training: batch normalization cannot work on it.
    """
    return DataLoader(
        DecodedSamples(split, how, seed, fill),
        batch_size=batch_size,
        sampler=EpochSampler(len(split), seed if shuffled else None),
        num_workers=0,
        drop_last=shuffled and last_is_single(len(split), batch_size),
    )


def last_is_single(length: int, batch_size: int) -> bool:
    """Whether the last of several batches would hold one sample."""
    return length % batch_size == 1 and length > 1
