"""Doing without a member: when its maps cannot be used, for which images, and what the rule keeps of what it learnt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from densemble.ensemble.combine import COMBINE
from densemble.errors import ArtifactError

Result = TypeVar("Result")


class UnusableMaps(ArtifactError):
    """A member's maps of some images of a batch cannot be used.

    Attributes:
        member: its name.
        reason: what is wrong with them, and what follows from it.
        images: places of these images in the batch.
    """

    def __init__(self, member: str, reason: str, images: Sequence[int], batch: int) -> None:
        self.member, self.reason, self.images = member, reason, tuple(dict.fromkeys(images))
        self._batch = batch
        places = ", ".join(map(str, self.images))
        where = "" if len(self.images) == batch else f"image {places} of a batch of {batch} (counted from 0): "
        super().__init__(f"{where}{self.told}")

    @property
    def told(self) -> str:
        """The message without the images' places."""
        return f"member '{self.member}' {self.reason}"

    def at(self, places: Sequence[int], batch: int) -> "UnusableMaps":
        """The same in the batch that this one was taken from.

        Args:
            places: of this batch's images in the other one.
            batch: number of images of the other one.
        """
        return UnusableMaps(self.member, self.reason, [places[image] for image in self.images], batch)

    def final(self, member: nn.Module, consequence: str) -> ArtifactError:
        """The error where the member is needed: no longer of these images alone if its own weights are not finite."""
        tensors = chain(member.parameters(), member.buffers())
        if any(tensor.is_floating_point() and not bool(tensor.isfinite().all()) for tensor in tensors):
            return ArtifactError(f"member '{self.member}' {self.reason}, for its weights do, {consequence}")
        return UnusableMaps(self.member, f"{self.reason}, {consequence}", self.images, self._batch)


class Reducible(Protocol):
    """An ensemble."""

    def without(self, error: UnusableMaps) -> Self:
        """The same without a member; see :meth:`densemble.ensemble.ensemble.Ensemble.without`."""


Reduced = TypeVar("Reduced", bound=Reducible)


@dataclass(frozen=True)
class Part(Generic[Result]):
    """Images of a batch that were run with the same members.

    Attributes:
        places: of the images in the batch.
        result: of the run.
    """

    places: list[int]
    result: Result


def per_image(
    ensemble: Reduced,
    images: Tensor,
    run: Callable[[Reduced, Tensor], Result],
    told: Callable[[UnusableMaps], None] = lambda error: None,
) -> list[Part[Result]]:
    """Runs an ensemble on a batch, each image with all members that give a usable map of it.

    Args:
        ensemble: all members.
        images: ``(B, C, H, W)``.
        run: called with an ensemble and images; raises :class:`UnusableMaps` for those that lack one of its members.
        told: called when images go on without a member.

    Returns:
        Usually one part of all images; where members are left out of some images, in no order.

    Raises:
        ArtifactError: a member cannot be done without; :class:`UnusableMaps` where other images can be used.
    """
    waiting = [(ensemble, list(range(len(images))))]
    done = []
    while waiting:
        able, places = waiting.pop()
        part = images if len(places) == len(images) else images[places]
        try:
            done.append(Part(places, run(able, part)))
        except UnusableMaps as error:
            found = error
        else:
            continue
        try:
            reduced = able.without(found)
        except UnusableMaps as error:
            raise error.at(places, len(images)) from None
        told(found.at(places, len(images)))
        waiting.append((reduced, [places[image] for image in found.images]))
        others = [place for number, place in enumerate(places) if number not in found.images]
        if others:
            waiting.append((able, others))
    return done


def require_usable(member: str, logits: Tensor, images: int, channels: int) -> None:
    """Checks a member's logits.

    Raises:
        UnusableMaps: for some images they are not finite, or for all of a wrong shape.
    """
    if logits.ndim != 4 or tuple(logits.shape[:2]) != (images, channels):
        reason = f"gives a map of shape {tuple(logits.shape)} instead of ({images}, {channels}, h, w)"
        raise UnusableMaps(member, reason, range(images), images)
    if torch.compiler.is_compiling():
        return
    # A finite sum proves that all values are finite, in a thirtieth of the time.
    if bool(logits.sum().isfinite()):
        return
    bad = (~logits.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
    if bad:
        raise UnusableMaps(member, "gives NaN or infinity", bad, images)


def keep_members(combine: str, fitted: Mapping[str, Tensor], places: Sequence[int]) -> dict[str, Tensor]:
    """What a rule learnt, of the members at these places only; they come first in every tensor.

    Raises:
        ArtifactError: the rule cannot do without any of its members.
    """
    if COMBINE[combine].needs_all:
        raise ArtifactError(
            f"the rule '{combine}' was fitted for all members and cannot do without one; assemble again without it, or "
            "with --combine mean"
        )
    return {name: tensor[list(places)] for name, tensor in fitted.items()}
