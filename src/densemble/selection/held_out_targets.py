"""Targets of the validation images, read on access."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from densemble.config import RunConfig
from densemble.data.decoded_cache import decode_split
from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.evaluation.scores import Target, as_target
from densemble.shapes import Size
from densemble.storage.runs import RunFolder


@dataclass(frozen=True)
class ReadTargets:
    """Targets by index of the image, none of them kept in memory.

    Attributes:
        count: number of images.
        read: function from the index of an image to its target.
    """

    count: int
    read: Callable[[int], Target]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, image: int) -> Target:
        return self.read(image)


def full_size_targets(data: FolderData, split: str) -> ReadTargets:
    """Return the targets at the size of their images, with fixations, read from the files of the data folder."""
    samples = data.split(split)

    def read(image: int) -> Target:
        _, target = data.read_pair(samples[image])
        return as_target(target, data.read_points(samples[image]))

    return ReadTargets(len(samples), read)


def small_targets(data: FolderData, config: RunConfig, run: RunFolder, size: Size) -> ReadTargets:
    """Return the validation targets at the size of the kept maps, without fixations.

    They are read from the decoded cache, which is much faster than decoding files again.
    """
    folder = Path(config.trainer.cache_dir).expanduser() if config.trainer.cache_dir else run.cache
    decoded = decode_split(data, "val", config.members[0].input_size or config.input_size, folder)

    def read(image: int) -> Target:
        return resize_target(torch.from_numpy(np.array(decoded.targets[image])), size, data.kind), None

    return ReadTargets(len(decoded), read)
