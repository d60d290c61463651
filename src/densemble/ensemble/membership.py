"""Predicting without a member: unusable maps, the images they concern, and the remaining fitted parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from densemble.ensemble.combine import rule_row
from densemble.errors import ArtifactError

Result = TypeVar("Result")
_DEFERRED: ContextVar[list[Tensor] | None] = ContextVar("deferred", default=None)


class UnusableMaps(ArtifactError):
    """A member's maps of some images of a batch cannot be used.

    Attributes:
        member: name of the member.
        reason: problem with the maps, and its consequence.
        images: indices of these images in the batch.
    """

    def __init__(self, member: str, reason: str, images: Sequence[int], batch: int) -> None:
        self.member, self.reason, self.images = member, reason, tuple(dict.fromkeys(images))
        self._batch = batch
        indices = ", ".join(map(str, self.images))
        where = "" if len(self.images) == batch else f"image {indices} of a batch of {batch} (counted from 0): "
        super().__init__(f"{where}{self.told}")

    @property
    def told(self) -> str:
        """The message without the indices of the images."""
        return f"member '{self.member}' {self.reason}"

    def at(self, indices: Sequence[int], batch: int) -> "UnusableMaps":
        """Return the same error for the larger batch that this batch was taken from.

        Args:
            indices: indices of this batch's images in the larger batch.
            batch: number of images in the larger batch.
        """
        return UnusableMaps(self.member, self.reason, [indices[image] for image in self.images], batch)

    def final(self, member: nn.Module, consequence: str) -> ArtifactError:
        """Return the error to raise if the member is needed; it names no images if the weights are not finite."""
        tensors = chain(member.parameters(), member.buffers())
        if any(tensor.is_floating_point() and not bool(tensor.isfinite().all()) for tensor in tensors):
            return ArtifactError(
                f"member '{self.member}' {self.reason}, because its weights are not finite, {consequence}"
            )
        return UnusableMaps(self.member, f"{self.reason}, {consequence}", self.images, self._batch)


class Reducible(Protocol):
    """An ensemble that can lose members."""

    def without(self, error: UnusableMaps) -> Self:
        """Return it without a member; see :meth:`densemble.ensemble.ensemble.Ensemble.without`."""


Reduced = TypeVar("Reduced", bound=Reducible)


@dataclass(frozen=True)
class Part(Generic[Result]):
    """Images of a batch that were run with the same members.

    Attributes:
        indices: indices of the images in the batch.
        result: result of the run.
    """

    indices: list[int]
    result: Result


def per_image(
    ensemble: Reduced,
    images: Tensor,
    run: Callable[[Reduced, Tensor], Result],
    report: Callable[[UnusableMaps], None] = lambda error: None,
) -> list[Part[Result]]:
    """Run an ensemble on a batch: each image with all members that give a usable map of it.

    Args:
        ensemble: ensemble with all members.
        images: ``(B, C, H, W)``.
        run: takes an ensemble and images; raises :class:`UnusableMaps` if a member has no usable map of some of them.
        report: called when images continue without a member.

    Returns:
        One part with all images, or several parts in any order if members are left out for some images.

    Raises:
        ArtifactError: a needed member cannot be used; :class:`UnusableMaps` if only some of the images are affected.
    """
    waiting = [(ensemble, list(range(len(images))))]
    done = []
    while waiting:
        able, indices = waiting.pop()
        part = images if len(indices) == len(images) else images[indices]
        try:
            done.append(Part(indices, run(able, part)))
        except UnusableMaps as error:
            unusable = error
        else:
            continue
        try:
            reduced = able.without(unusable)
        except UnusableMaps as error:
            raise error.at(indices, len(images)) from None
        report(unusable.at(indices, len(images)))
        waiting.append((reduced, [indices[image] for image in unusable.images]))
        others = [index for position, index in enumerate(indices) if position not in unusable.images]
        if others:
            waiting.append((able, others))
    return done


@contextmanager
def deferred_checks() -> Iterator[list[Tensor]]:
    """Collect the results of :func:`require_usable` as scalar bool tensors, instead of waiting for each of them.

    A CUDA graph cannot wait for a value while it is recorded. The caller checks the tensors after the run.
    """
    results: list[Tensor] = []
    token = _DEFERRED.set(results)
    try:
        yield results
    finally:
        _DEFERRED.reset(token)


def require_usable(member: str, logits: Tensor, images: int, channels: int) -> None:
    """Check a member's logits; see also :func:`deferred_checks`.

    Raises:
        UnusableMaps: the logits of some images are not finite, or all have a wrong shape.
    """
    if logits.ndim != 4 or tuple(logits.shape[:2]) != (images, channels):
        reason = f"gives a map of shape {tuple(logits.shape)} instead of ({images}, {channels}, h, w)"
        raise UnusableMaps(member, reason, range(images), images)
    if torch.compiler.is_compiling():
        return
    # A finite sum proves that all values are finite, 30 times faster than checking each value.
    finite, deferred = logits.sum().isfinite(), _DEFERRED.get()
    if deferred is not None:
        deferred.append(finite)
        return
    if bool(finite):
        return
    bad = (~logits.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
    if bad:
        raise UnusableMaps(member, "gives NaN or infinity", bad, images)


def keep_members(combine: str, fitted: Mapping[str, Tensor], indices: Sequence[int]) -> dict[str, Tensor]:
    """Return the fitted parameters of a rule for the members at ``indices``; members are the first axis of all tensors.

    Raises:
        ArtifactError: the rule needs all of its members.
    """
    if rule_row(combine).needs_all:
        raise ArtifactError(
            f"the rule '{combine}' was fitted for all members and cannot be used without one; assemble again without "
            "it, or with --combine mean"
        )
    return {name: tensor[list(indices)] for name, tensor in fitted.items()}
