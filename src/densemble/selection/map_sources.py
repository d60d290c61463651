"""Where a candidate's held-out maps come from: kept arrays, logits as served, or a sample of served pixels."""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.calibrate import temper
from densemble.ensemble.resize import resize_maps
from densemble.shapes import Array, Size
from densemble.storage.tensor_file import TensorFile
from densemble.tasks import Task

MAX_PIXELS = 4096
"""Pixels that are sampled of one image at most."""


class Maps(Protocol):
    """One candidate's predictions of the held-out images."""

    def read(self, image: int, temperature: float) -> Tensor:
        """Activated map float32 ``(K, h, w)`` of an image by its number, its logits divided by ``temperature``."""


@dataclass(frozen=True)
class KeptMaps:
    """Activated maps ``(N, K, h, w)`` in one array, best mapped from disk. They may be smaller than those served."""

    array: Array
    task: Task

    def read(self, image: int, temperature: float) -> Tensor:
        """See :class:`Maps`."""
        maps = torch.from_numpy(read_map(self.array, image)).float()
        return temper(maps[None], temperature, self.task.distribution)[0]


@dataclass(frozen=True)
class StoredMaps:
    """Activated maps in a file, already tempered."""

    file: TensorFile

    def read(self, image: int, temperature: float) -> Tensor:
        """See :class:`Maps`.

        Raises:
            ValueError: a temperature other than 1: the stored maps have theirs.
        """
        if temperature != 1:
            raise ValueError(f"stored maps are tempered already; they cannot be tempered by {temperature:g}")
        return self.file.read(image)


@dataclass(frozen=True)
class ServedMaps:
    """Maps exactly as the ensemble serves them, made of the logits at the head's own size.

    Attributes:
        logits: ``(K, h', w')`` of every image.
        sizes: (h, w) of the served map of every image.
        task: whose activation is applied.
    """

    logits: TensorFile
    sizes: Mapping[int, Size]
    task: Task

    def read(self, image: int, temperature: float) -> Tensor:
        """See :class:`Maps`."""
        logits = resize_maps(self.logits.read(image)[None] / temperature, self.sizes[image])
        return self.task.activation(logits)[0]


@dataclass(frozen=True)
class SampledPixels:
    """Pixels of one image that stand for all of it.

    Attributes:
        places: flat places in the served map that each sampled pixel of the target is interpolated from, ``(P, n)``.
        shares: their weights in the bilinear interpolation, ``(P, n)``; n is 1 where the sizes are equal, else 4.
        target: flat places of the pixels in the target, ``(P,)``.
    """

    places: Tensor
    shares: Tensor
    target: Tensor

    def of_target(self, target: Tensor) -> Tensor:
        """The target at the sampled pixels: ``(H, W)`` -> ``(P, 1)``, ``(K, H, W)`` -> ``(K, P, 1)``."""
        return target.flatten(-2)[..., self.target][..., None]


@dataclass(frozen=True)
class SampledMaps:
    """Served maps at a sample of the target's pixels, as maps of shape ``(K, P, 1)``.

    Where a task has temperatures, logits are stored at the n places that a pixel is interpolated from, so that the
    result is exactly the served one at any temperature; else the served values themselves.

    Attributes:
        values: ``(K, P, n)``, or ``(K, P, 1)`` of served values.
        pixels: of every image.
        task: whose activation is applied to logits.
    """

    values: TensorFile
    pixels: Mapping[int, SampledPixels]
    task: Task

    def read(self, image: int, temperature: float) -> Tensor:
        """See :class:`Maps`."""
        values = self.values.read(image)
        if not self.task.has_temperature:
            return values
        maps = self.task.activation(values[None] / temperature)[0]
        return (maps * self.pixels[image].shares).sum(-1, keepdim=True)


def sample_pixels(known: Tensor, served: Size, image: int, most: int = MAX_PIXELS) -> SampledPixels:
    """A random sample of the known pixels of a target, the same at every call.

    Args:
        known: bool ``(H, W)``.
        served: (h, w) of the served map.
        image: its number, the seed.
        most: pixels that are taken at most; all where there are fewer.
    """
    flat = known.flatten().nonzero()[:, 0]
    if len(flat) > most:
        order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(image))
        flat = flat[order[:most].sort().values]
    if tuple(known.shape) == served:
        return SampledPixels(flat[:, None], torch.ones(len(flat), 1), flat)
    rows, row_shares = _neighbours(flat // known.shape[1], int(known.shape[0]), served[0])
    columns, column_shares = _neighbours(flat % known.shape[1], int(known.shape[1]), served[1])
    places = rows[:, :, None] * served[1] + columns[:, None]
    shares = row_shares[:, :, None] * column_shares[:, None]
    return SampledPixels(places.flatten(1), shares.flatten(1), flat)


def _neighbours(places: Tensor, length: int, served: int) -> tuple[Tensor, Tensor]:
    """The two places along an axis that bilinear resizing (half-pixel centres) reads, and their weights, ``(P, 2)``."""
    position = ((places.double() + 0.5) * (served / length) - 0.5).clamp(min=0)
    low = position.floor().long().clamp(max=served - 1)
    high = (low + 1).clamp(max=served - 1)
    share = (position - low).float()
    return torch.stack([low, high], 1), torch.stack([1 - share, share], 1)


def read_map(maps: Array, image: int) -> Array:
    """One candidate's map of one image, a copy.

    Pages of a mapped file count as memory of this process until the system reclaims them, after one pass all of them.
    They are released at once, so that a process with limited memory survives; the system's cache keeps them.
    """
    found = np.array(maps[image])
    if isinstance(maps, np.memmap) and maps.mode != "c" and isinstance(maps.base, mmap.mmap):
        maps.base.madvise(mmap.MADV_DONTNEED)
    return found
