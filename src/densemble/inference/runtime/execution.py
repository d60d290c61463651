"""How networks are run: which backends and precisions may be chosen, what was chosen, and what it is remembered by."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends import BACKENDS, REFERENCE, Precision, Runner
from densemble.inference.runtime.choose_backend import Choice, candidates, is_right, largest_error, tune
from densemble.inference.runtime.disk_cache import identity
from densemble.inference.runtime.remembered_choices import recall, remember
from densemble.nets.heads.head import DenseHead
from densemble.shapes import Size

WORTH_SECONDS = 4.0
"""About what tuning one network takes on a CPU, beside some runs of it."""
WORTH_RUNS = 20
GAINED_SHARE = 0.4
"""Of the time to run it eagerly, saved by what is usually chosen."""


def say_nothing(text: str) -> None:
    """Drops a message; unlike a lambda it can be pickled."""


class Grid(nn.Module):
    """What is compiled of a member: normalized images ``(B, C, H, W)`` -> logits at the head's own size.

    Args:
        backbone: of the member.
        head: of the member.
        size: where the head's steps stop; ``None``: they go as far as they were made to.
    """

    def __init__(self, backbone: nn.Module, head: DenseHead, size: Size | None) -> None:
        super().__init__()
        self.backbone, self.head, self.size = backbone, head, size

    def forward(self, normalized: Tensor) -> Tensor:
        """Normalized images ``(B, C, H, W)`` -> logits ``(B, K, h, w)``."""
        return self.head.grid(self.backbone(normalized), self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}"  # part of the network's identity


@dataclass(frozen=True)
class Unchecked:
    """Numbers of a remembered choice, to be compared with those of eager float32 once its network is compiled.

    Attributes:
        example: normalized images.
        reference: their logits in eager float32.
        activation: logits -> maps.
        precision: that was chosen.
        eager: makes the runner to use if the numbers are wrong.
    """

    example: Tensor
    reference: list[Tensor]
    activation: Callable[[Tensor], Tensor]
    precision: Precision
    eager: Callable[[], Runner]

    def is_right(self, outputs: Sequence[Tensor]) -> bool:
        """Whether these logits of the example are near enough to the reference."""
        error = largest_error(outputs, self.reference, self.activation, self.precision)
        return is_right(error, self.precision)


@dataclass(frozen=True)
class Tuned:
    """A network ready to run at one shape.

    Attributes:
        batch: number of images.
        grid_size: (h, w) of the logits of heads that go as far as they were made to, of several the largest.
        stops_at: the only map size that it serves; ``None``: all that are at least ``grid_size``.
        runner: see :data:`Runner`.
        choice: how it was chosen.
        unchecked: the runner's numbers are still to be checked; ``None``: they are right.
    """

    batch: int
    grid_size: Size
    stops_at: Size | None
    runner: Runner
    choice: Choice
    unchecked: Unchecked | None = None

    def serves(self, wanted: Size) -> bool:
        """Whether its logits are those for a map of that size."""
        if self.stops_at is not None:
            return wanted == self.stops_at
        return wanted[0] >= self.grid_size[0] and wanted[1] >= self.grid_size[1]


@dataclass
class Execution:
    """How an ensemble's networks are run.

    Attributes:
        backend: a row of ``BACKENDS``, or ``auto``.
        precision: the lowest that may be chosen, or ``auto``.
        activation: logits -> maps.
        expected: images that are still to come: a network is tuned where that is worth it; ``None``: always.
        say: told what was chosen.
    """

    backend: str
    precision: str
    activation: Callable[[Tensor], Tensor]
    expected: int | None = None
    say: Callable[[str], None] = say_nothing

    @property
    def always(self) -> bool:
        """Whether networks are tuned before they run, however few the images are."""
        return self.expected is None and not self._reference

    @property
    def _reference(self) -> bool:
        return (self.backend, self.precision) == REFERENCE

    def worth(self, images: int, seconds: float, share: float = 1.0) -> bool:
        """Whether to tune a network for a shape.

        Args:
            images: of a batch of that shape.
            seconds: that it took to run eagerly.
            share: of all images so far that had the shape.
        """
        if self._reference or self.expected is None:
            return False
        gained = share * self.expected / images * seconds * GAINED_SHARE
        return gained > WORTH_SECONDS + WORTH_RUNS * seconds

    @torch.no_grad()
    def tune(
        self,
        name: str,
        build: Callable[[Size | None], nn.Module],
        normalized: Tensor,
        wanted: Size,
        joined: bool = False,
    ) -> Tuned:
        """The fastest right way to run a network at the shape of these images.

        Args:
            name: of the network, used in messages.
            build: makes the network, by where the steps of its heads stop.
            normalized: real images, ``(B, C, H, W)``.
            wanted: (h, w) of the maps.
            joined: the network is to be compiled with others. A remembered choice is then not compiled by itself, and
                its numbers are left to be checked.
        """
        started = time.monotonic()
        network = build(None).eval()
        reference = _eager(network, normalized)(normalized)
        natural, stops_at = _largest(reference), None
        if wanted[0] < natural[0] or wanted[1] < natural[1]:
            network, stops_at = build(wanted).eval(), wanted
            reference = _eager(network, normalized)(normalized)
        pairs = candidates(self.backend, self.precision, normalized.device)
        named = None if self.backend == "auto" else self.backend
        key = identity(network, normalized, pairs, named)
        known, unchecked = recall(key), None
        runner = _joinable(network, normalized, known) if joined else None
        if known is not None and runner is not None:

            def eager() -> Runner:
                return _eager(build(stops_at).eval(), normalized)

            choice = known
            unchecked = Unchecked(normalized, reference, self.activation, choice.precision, eager)
        else:
            choice, runner = tune(
                network, normalized, self.activation, pairs, named=named, remembered=known, reference=reference
            )
            if known is None:
                remember(key, choice)
        self.say(
            f"{name}: {choice.backend} {choice.precision}, {choice.speedup:.1f}x eager, error {choice.error:.1g} "
            f"({time.monotonic() - started:.1f} s)"
        )
        return Tuned(len(normalized), natural, stops_at, runner, choice, unchecked)


def _joinable(network: nn.Module, example: Tensor, remembered: Choice | None) -> Runner | None:
    """The network by its remembered choice, to be compiled with others; ``None`` where that is not possible."""
    if remembered is None or not BACKENDS[remembered.backend].joinable:
        return None
    try:
        return BACKENDS[remembered.backend].compile(network, example, remembered.precision, [example])
    except UsageError:  # for instance, its converted file is gone and cannot be made again
        return None


def _eager(network: nn.Module, example: Tensor) -> Runner:
    return BACKENDS["eager"].compile(network, example, "fp32", ())


def _largest(grids: Sequence[Tensor]) -> Size:
    return max(int(grid.shape[-2]) for grid in grids), max(int(grid.shape[-1]) for grid in grids)
