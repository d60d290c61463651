"""HeldOut: kept predictions of several candidates beside what is true, read picture by picture."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.calibrate import temper
from densemble.shapes import Size
from densemble.tasks import Task

Array = np.ndarray[Any, Any]
Truth = tuple[Tensor, Tensor | None]
"""A target as the task has them, of any size, and fixations bool ``(H, W)`` where there are some."""


@dataclass(frozen=True)
class HeldOut:
    """Predictions of M candidates on N pictures; memory holds one picture at a time.

    Attributes:
        names: of the candidates.
        maps: activated maps ``(all pictures, K, h, w)`` of each candidate, all of one shape, best mapped from disk.
        truths: what is true of each picture, by its number.
        task: what the maps mean.
        pictures: numbers of the pictures that are read, in this order.
        temperatures: each candidate's logits are divided by its own before anything else is done with its maps.
    """

    names: tuple[str, ...]
    maps: tuple[Array, ...]
    truths: Sequence[Truth]
    task: Task
    pictures: tuple[int, ...]
    temperatures: tuple[float, ...]

    @property
    def size(self) -> Size:
        """(h, w) of the kept maps."""
        height, width = self.maps[0].shape[-2:]
        return int(height), int(width)

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, picture: int) -> Tensor:
        """All candidates' tempered maps of one picture, float32 ``(M, K, h, w)``; ``picture`` is its number."""
        found = torch.empty(len(self.maps), *self.maps[0].shape[1:])
        for own, maps, temperature in zip(found, self.maps, self.temperatures, strict=True):
            own.copy_(torch.from_numpy(read_map(maps, picture)))
            if temperature != 1:
                own.copy_(temper(own[None], temperature, self.task.distribution)[0])
        return found

    def __iter__(self) -> Iterator[tuple[Tensor, Truth]]:
        """Every picture's maps ``(M, K, h, w)`` and truth, one after the other."""
        for picture in self.pictures:
            yield self.read(picture), self.truths[picture]

    def only(self, pictures: Sequence[int]) -> "HeldOut":
        """The same candidates on some of the pictures."""
        return replace(self, pictures=tuple(pictures))

    def of(self, names: Sequence[str]) -> "HeldOut":
        """Some of the candidates, in the order of ``names``.

        Raises:
            KeyError: a candidate that is not there.
        """
        place = {name: number for number, name in enumerate(self.names)}
        numbers = [place[name] for name in names]
        return replace(
            self,
            names=tuple(names),
            maps=tuple(self.maps[number] for number in numbers),
            temperatures=tuple(self.temperatures[number] for number in numbers),
        )

    def tempered(self, temperatures: Sequence[float]) -> "HeldOut":
        """The same with other temperatures, one per candidate."""
        return replace(self, temperatures=tuple(temperatures))


def held_out(names: Sequence[str], maps: Sequence[Array], truths: Sequence[Truth], task: Task) -> HeldOut:
    """All pictures, untempered.

    Raises:
        ValueError: maps of different shapes, or another number of truths.
    """
    shapes = {name: own.shape for name, own in zip(names, maps, strict=True)}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"kept predictions have different shapes: {shapes}")
    if len(truths) != len(maps[0]):
        raise ValueError(f"{len(truths)} truths for {len(maps[0])} pictures")
    return HeldOut(tuple(names), tuple(maps), truths, task, tuple(range(len(truths))), (1.0,) * len(maps))


def read_map(maps: Array, picture: int) -> Array:
    """One candidate's map of one picture, a copy.

    What was read of a mapped file counts as this process's memory until the system wants it back: after one pass all
    of it, which ends a process whose memory is limited. So it is let go at once; the system's own cache keeps it.
    """
    own = np.array(maps[picture])
    if isinstance(maps, np.memmap) and maps.mode != "c" and isinstance(maps.base, mmap.mmap):
        maps.base.madvise(mmap.MADV_DONTNEED)
    return own
