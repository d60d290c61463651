"""The members' maps of held-out pictures as they are served: made when they are asked for, none kept."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.ensemble.ensemble import Ensemble
from densemble.evaluation import truths
from densemble.heldout.predictions import Truth
from densemble.tasks import Task


class Served:
    """Tempered maps of an ensemble's members, at the size that it gives, beside targets at their own.

    Args:
        ensemble: in eval mode, on the CPU.
        data: its data set.
        pictures: numbers of the validation pictures.
    """

    def __init__(self, ensemble: Ensemble, data: FolderData, pictures: Sequence[int]) -> None:
        self._ensemble, self._data, self._pictures = ensemble, data, pictures

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        return tuple(self._ensemble.members)

    @property
    def task(self) -> Task:
        """What the maps mean."""
        return self._ensemble.task

    def __len__(self) -> int:
        return len(self._pictures)

    @torch.no_grad()
    def __iter__(self) -> Iterator[tuple[Tensor, Truth]]:
        """Every picture's maps ``(M, K, h, w)`` and truth, one after the other."""
        for images, target, points in truths(self._data, "val", self._pictures):
            maps = torch.cat([own for _, own in self._ensemble.member_maps(images)])
            yield maps, (target, points)
