"""HeldOut: predictions of several candidates on held-out images beside their targets, read image by image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from densemble.ensemble.combination import Combination
from densemble.evaluation.scores import Target
from densemble.selection.map_sources import KeptMaps, Maps
from densemble.shapes import Array
from densemble.tasks import Task


class Targets(Protocol):
    """Targets by the number of their image: a list, a dict, or read when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, image: int, /) -> Target: ...


@dataclass(frozen=True)
class HeldOut:
    """Predictions of M candidates on N images; memory holds one image at a time.

    Attributes:
        names: of the candidates.
        maps: where each candidate's maps are read from, all of one shape.
        targets: target of each image, by its number.
        task: what the maps mean.
        images: numbers of the images that are read, in this order.
        temperatures: each candidate's logits are divided by its own before anything else is done with its maps.
    """

    names: tuple[str, ...]
    maps: tuple[Maps, ...]
    targets: Targets
    task: Task
    images: tuple[int, ...]
    temperatures: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, image: int) -> Tensor:
        """All candidates' tempered maps of one image, float32 ``(M, K, h, w)``; ``image`` is its number."""
        pairs = zip(self.maps, self.temperatures, strict=True)
        return torch.stack([maps.read(image, temperature) for maps, temperature in pairs])

    def __iter__(self) -> Iterator[tuple[Tensor, Target]]:
        """Every image's maps ``(M, K, h, w)`` and target, one after the other."""
        for image in self.images:
            yield self.read(image), self.targets[image]

    def combined(self, combination: Combination) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image's combined and calibrated map ``(K, h, w)`` and target; the candidates are its members."""
        for maps, (target, _) in self:
            yield combination.combine(maps[:, None])[0], target

    def only(self, images: Sequence[int]) -> "HeldOut":
        """The same candidates on some of the images."""
        return replace(self, images=tuple(images))

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


def held_out(names: Sequence[str], maps: Sequence[Array], targets: Targets, task: Task) -> HeldOut:
    """All images of kept arrays ``(N, K, h, w)``, untempered.

    Raises:
        ValueError: maps of different shapes, or another number of targets.
    """
    shapes = {name: own.shape for name, own in zip(names, maps, strict=True)}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"kept predictions have different shapes: {shapes}")
    if len(targets) != len(maps[0]):
        raise ValueError(f"{len(targets)} targets for {len(maps[0])} images")
    sources = tuple(KeptMaps(array, task) for array in maps)
    return HeldOut(tuple(names), sources, targets, task, tuple(range(len(targets))), (1.0,) * len(maps))
