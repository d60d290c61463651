"""Sources of a candidate's held-out maps: kept arrays, stored logits, or a sample of pixels."""

import mmap
import sys
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
"""Maximum number of pixels that are sampled from one image."""


class Maps(Protocol):
    """Predictions of one candidate on the held-out images."""

    def read(self, image: int, temperature: float) -> Tensor:
        """Read the activated map of an image by index, float32 ``(K, h, w)``, its logits divided by ``temperature``."""


@dataclass(frozen=True)
class KeptMaps:
    """Activated maps ``(N, K, h, w)`` in one array, preferably memory-mapped; usually smaller than served maps."""

    array: Array
    task: Task

    def read(self, image: int, temperature: float) -> Tensor:
        """See :class:`Maps`."""
        maps = torch.from_numpy(read_map(self.array, image)).float()
        return temper(maps[None], temperature, self.task.distribution)[0]


@dataclass(frozen=True)
class StoredMaps:
    """Activated and tempered maps in a file."""

    file: TensorFile

    def read(self, image: int, temperature: float) -> Tensor:
        """See :class:`Maps`.

        Raises:
            ValueError: a temperature other than 1: the stored maps are tempered.
        """
        if temperature != 1:
            raise ValueError(f"stored maps are tempered already; they cannot be tempered by {temperature:g}")
        return self.file.read(image)


@dataclass(frozen=True)
class ServedMaps:
    """Maps exactly as the ensemble serves them, computed from logits at the size of the head's output.

    Attributes:
        logits: logits ``(K, h', w')`` of every image.
        sizes: (h, w) of the served map of every image.
        task: the task, for its activation.
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
    """A sample of P pixels of one target, and the pixels of the served map that they are interpolated from.

    Attributes:
        sources: flat indices into the served map, ``(P, n)``; n is 1 if the sizes are equal, else 4.
        shares: weights of the sources in the bilinear interpolation, ``(P, n)``.
        target: flat indices of the pixels in the target, ``(P,)``.
    """

    sources: Tensor
    shares: Tensor
    target: Tensor

    def of_target(self, target: Tensor) -> Tensor:
        """Return the target at the sampled pixels: ``(H, W)`` -> ``(P, 1)``, ``(K, H, W)`` -> ``(K, P, 1)``."""
        return target.flatten(-2)[..., self.target][..., None]


@dataclass(frozen=True)
class SampledMaps:
    """Served maps at a sample of the target's pixels, as maps of shape ``(K, P, 1)``.

    If the task has temperatures, the file stores the logits at the n sources of each pixel, so that the result equals
    the served map at any temperature. Otherwise it stores the served values.

    Attributes:
        values: logits ``(K, P, n)``, or served values ``(K, P, 1)``.
        pixels: sampled pixels of every image.
        task: the task, for its activation of logits.
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


def sample_pixels(known: Tensor, served: Size, image: int, max_pixels: int = MAX_PIXELS) -> SampledPixels:
    """Draw a random sample of the known pixels of a target, the same at every call.

    Args:
        known: bool ``(H, W)``.
        served: (h, w) of the served map.
        image: index of the image, used as the seed.
        max_pixels: maximum number of pixels; all known pixels if there are fewer.
    """
    flat = known.flatten().nonzero()[:, 0]
    if len(flat) > max_pixels:
        order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(image))
        flat = flat[order[:max_pixels].sort().values]
    if tuple(known.shape) == served:
        return SampledPixels(flat[:, None], torch.ones(len(flat), 1), flat)
    rows, row_shares = _neighbours(flat // known.shape[1], int(known.shape[0]), served[0])
    columns, column_shares = _neighbours(flat % known.shape[1], int(known.shape[1]), served[1])
    sources = rows[:, :, None] * served[1] + columns[:, None]
    shares = row_shares[:, :, None] * column_shares[:, None]
    return SampledPixels(sources.flatten(1), shares.flatten(1), flat)


def _neighbours(positions: Tensor, length: int, served: int) -> tuple[Tensor, Tensor]:
    """Return the indices along an axis that bilinear resizing (half-pixel centres) reads, and weights, ``(P, 2)``."""
    position = ((positions.double() + 0.5) * (served / length) - 0.5).clamp(min=0)
    low = position.floor().long().clamp(max=served - 1)
    high = (low + 1).clamp(max=served - 1)
    share = (position - low).float()
    return torch.stack([low, high], 1), torch.stack([1 - share, share], 1)


def read_map(maps: Array, image: int) -> Array:
    """Copy the map of one image from an array of one candidate.

    The pages of a memory-mapped file count as memory of this process until the system reclaims them; after one pass
    that is the whole file. This function releases them at once, so that a process with limited memory survives. The
    file cache of the system keeps them.
    """
    copy = np.array(maps[image])
    if sys.platform == "win32":  # has no such call
        return copy
    if isinstance(maps, np.memmap) and maps.mode != "c" and isinstance(maps.base, mmap.mmap):
        maps.base.madvise(mmap.MADV_DONTNEED)
    return copy
