"""HeldOut: predictions of several candidates on held-out images with the targets, read image by image."""

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
    """Targets by index of the image: a list, a dict, or read on access."""

    def __len__(self) -> int: ...
    def __getitem__(self, image: int, /) -> Target: ...


@dataclass(frozen=True)
class HeldOut:
    """Predictions of M candidates on N images; one image at a time is in memory.

    Attributes:
        names: names of the candidates.
        maps: source of each candidate's maps; all maps of an image have one shape.
        targets: target of each image, by index of the image.
        task: meaning of the maps.
        images: indices of the images, in reading order.
        temperatures: temperature of each candidate; the logits of its maps are divided by it.
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
        """Read all candidates' tempered maps of the image with index ``image``, float32 ``(M, K, h, w)``."""
        pairs = zip(self.maps, self.temperatures, strict=True)
        return torch.stack([maps.read(image, temperature) for maps, temperature in pairs])

    def __iter__(self) -> Iterator[tuple[Tensor, Target]]:
        """Yield the maps ``(M, K, h, w)`` and the target of each image."""
        for image in self.images:
            yield self.read(image), self.targets[image]

    def combined(self, combination: Combination) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the combined, calibrated map ``(K, h, w)`` and the target of each image; all candidates are members."""
        for maps, (target, _) in self:
            yield combination.combine(maps[:, None])[0], target

    def only(self, images: Sequence[int]) -> "HeldOut":
        """Return the same candidates on some of the images."""
        return replace(self, images=tuple(images))

    def of(self, names: Sequence[str]) -> "HeldOut":
        """Return some of the candidates, in the order of ``names``.

        Raises:
            KeyError: no candidate has one of the names.
        """
        index_of = {name: index for index, name in enumerate(self.names)}
        indices = [index_of[name] for name in names]
        return replace(
            self,
            names=tuple(names),
            maps=tuple(self.maps[index] for index in indices),
            temperatures=tuple(self.temperatures[index] for index in indices),
        )

    def tempered(self, temperatures: Sequence[float]) -> "HeldOut":
        """Return the same predictions with other temperatures, one per candidate."""
        return replace(self, temperatures=tuple(temperatures))


def held_out(names: Sequence[str], maps: Sequence[Array], targets: Targets, task: Task) -> HeldOut:
    """Make the untempered predictions of all images from kept arrays ``(N, K, h, w)``.

    Raises:
        ValueError: maps of different shapes, or another number of targets than images.
    """
    shapes = {name: array.shape for name, array in zip(names, maps, strict=True)}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"kept predictions have different shapes: {shapes}")
    if len(targets) != len(maps[0]):
        raise ValueError(f"{len(targets)} targets for {len(maps[0])} images")
    sources = tuple(KeptMaps(array, task) for array in maps)
    return HeldOut(tuple(names), sources, targets, task, tuple(range(len(targets))), (1.0,) * len(maps))
