"""Targets of the validation images, read one by one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch

from densemble.config import RunConfig
from densemble.data.cache import DecodedSplit, decode_split
from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.heldout.predictions import Truth
from densemble.shapes import Size
from densemble.storage.runs import RunFolder
from densemble.tasks.base import TargetKind


class _OneByOne(Sequence[Truth], ABC):
    @abstractmethod
    def _read(self, picture: int) -> Truth:
        """The target of one image, by its number."""

    @overload
    def __getitem__(self, picture: int) -> Truth: ...
    @overload
    def __getitem__(self, picture: slice) -> list[Truth]: ...
    def __getitem__(self, picture: int | slice) -> Truth | list[Truth]:
        if isinstance(picture, slice):
            return [self._read(number) for number in range(len(self))[picture]]
        return self._read(picture)


class KeptTruths(_OneByOne):
    """Targets at the size of the kept maps, without fixations, from the decoded cache: quick to read again."""

    def __init__(self, decoded: DecodedSplit, size: Size, kind: TargetKind) -> None:
        self._decoded, self._size, self._kind = decoded, size, kind

    def __len__(self) -> int:
        return len(self._decoded)

    def _read(self, picture: int) -> Truth:
        target = torch.from_numpy(np.array(self._decoded.targets[picture]))
        return resize_target(target, self._size, self._kind), None


class OwnTruths(_OneByOne):
    """Targets at their own size with fixations, from the data folder's files."""

    def __init__(self, data: FolderData, split: str) -> None:
        self._data, self._samples = data, data.split(split)

    def __len__(self) -> int:
        return len(self._samples)

    def _read(self, picture: int) -> Truth:
        sample = self._samples[picture]
        _, target = self._data.read_pair(sample)
        points = self._data.read_points(sample)
        wanted = torch.from_numpy(np.ascontiguousarray(target))
        return wanted, None if points is None else torch.from_numpy(points)


def kept_truths(data: FolderData, config: RunConfig, run: RunFolder, size: Size) -> KeptTruths:
    """The validation split's targets at the size of the kept maps."""
    folder = Path(config.trainer.cache_dir).expanduser() if config.trainer.cache_dir else run.cache
    decoded = decode_split(data, "val", config.members[0].input_size or config.input_size, folder)
    return KeptTruths(decoded, size, data.kind)
