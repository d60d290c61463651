"""Execution: tuning of an ensemble's networks, and the runners that result."""

import logging
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

WORTH_SECONDS = {"cpu": 4.0, "cuda": 1.0}
"""Approximate seconds to tune one network, in addition to some runs of it, by type of the device."""
WORTH_RUNS = 20
"""Runs of the network during tuning."""
GAINED_SHARE = 0.4
"""Share of the eager time that a tuned network usually saves."""

log = logging.getLogger(__name__)


class LowResNetwork(nn.Module):
    """The compiled part of a member: normalized images ``(B, C, H, W)`` -> logits at the resolution of the head.

    Args:
        backbone: backbone of the member.
        head: head of the member.
        size: (h, w) at which the upsampling steps of the head stop; ``None``: all steps run.
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
class PendingCheck:
    """The check of a remembered choice, made once its network is compiled: outputs against eager float32.

    Attributes:
        example: normalized images.
        reference: logits of eager float32 for the example.
        activation: logits -> maps.
        precision: the remembered precision.
        eager: makes the runner to use if the outputs are wrong.
    """

    example: Tensor
    reference: list[Tensor]
    activation: Callable[[Tensor], Tensor]
    precision: Precision
    eager: Callable[[], Runner]

    def is_right(self, outputs: Sequence[Tensor]) -> bool:
        """Whether these logits of the example are close enough to the reference."""
        error = largest_error(outputs, self.reference, self.activation, self.precision)
        return is_right(error, self.precision)


@dataclass(frozen=True)
class TunedRunner:
    """A network ready to run at one shape.

    Attributes:
        batch: number of images.
        full_size: (h, w) of the logits after all steps of the heads; the largest of several heads.
        stops_at: the only map size that the network serves; ``None``: all sizes of at least ``full_size``.
        runner: see :data:`Runner`.
        choice: backend and precision, with the measurements.
        pending: check of the outputs that is still to be made; ``None``: the outputs are right.
    """

    batch: int
    full_size: Size
    stops_at: Size | None
    runner: Runner
    choice: Choice
    pending: PendingCheck | None = None

    def serves(self, map_size: Size) -> bool:
        """Whether the logits are those for a map of this size."""
        if self.stops_at is not None:
            return map_size == self.stops_at
        return map_size[0] >= self.full_size[0] and map_size[1] >= self.full_size[1]


@dataclass
class Execution:
    """How the networks of an ensemble are run.

    Attributes:
        backend: a row of ``BACKENDS``, or ``auto``.
        precision: the lowest permitted precision, or ``auto``.
        activation: logits -> maps.
        expected: number of images still to come: a network is tuned only if that saves time; ``None``: always.
    """

    backend: str
    precision: str
    activation: Callable[[Tensor], Tensor]
    expected: int | None = None

    @property
    def always(self) -> bool:
        """Whether networks are tuned before they run, whatever the number of images."""
        return self.expected is None and not self._reference

    @property
    def _reference(self) -> bool:
        return (self.backend, self.precision) == REFERENCE

    def worth(self, images: int, seconds: float, share: float = 1.0, device: str = "cpu") -> bool:
        """Whether tuning a network for a shape saves time.

        Args:
            images: number of images in a batch of that shape.
            seconds: time of one eager run of that batch.
            share: share of that shape among all images so far.
            device: type of the device.
        """
        if self._reference or self.expected is None:
            return False
        gained = share * self.expected / images * seconds * GAINED_SHARE
        return gained > WORTH_SECONDS.get(device, WORTH_SECONDS["cpu"]) + WORTH_RUNS * seconds

    @torch.no_grad()
    def tune(
        self,
        name: str,
        build: Callable[[Size | None], nn.Module],
        normalized: Tensor,
        map_size: Size,
        shared: bool = False,
    ) -> TunedRunner:
        """Select the fastest backend and precision with right outputs for these images, and log the choice.

        Args:
            name: network name used in messages.
            build: makes the network; takes the size at which the steps of its heads stop.
            normalized: real images, ``(B, C, H, W)``.
            map_size: (h, w) of the maps.
            shared: the network is compiled together with others later. A remembered choice is then not compiled
                separately, and the check of its outputs is left pending.
        """
        started = time.monotonic()
        network = build(None).eval()
        reference = _eager(network, normalized)(normalized)
        full_size, stops_at = _largest(reference), None
        if map_size[0] < full_size[0] or map_size[1] < full_size[1]:
            network, stops_at = build(map_size).eval(), map_size
            reference = _eager(network, normalized)(normalized)
        pairs = candidates(self.backend, self.precision, normalized.device)
        named = None if self.backend == "auto" else self.backend
        key = identity(network, normalized, pairs, named)
        remembered, pending = recall(key), None
        runner = _joinable(network, normalized, remembered) if shared else None
        if remembered is not None and runner is not None:

            def eager() -> Runner:
                return _eager(build(stops_at).eval(), normalized)

            choice = remembered
            pending = PendingCheck(normalized, reference, self.activation, choice.precision, eager)
        else:
            choice, runner = tune(
                network, normalized, self.activation, pairs, named=named, remembered=remembered, reference=reference
            )
            if remembered is None:
                remember(key, choice)
        log.info(
            f"{name}: {choice.backend} {choice.precision}, {choice.speedup:.1f}x eager, error {choice.error:.1g} "
            f"({time.monotonic() - started:.1f} s)"
        )
        return TunedRunner(len(normalized), full_size, stops_at, runner, choice, pending)


def _joinable(network: nn.Module, example: Tensor, remembered: Choice | None) -> Runner | None:
    """Runner of a remembered choice that can be joined with others; ``None`` if there is none."""
    if remembered is None or not BACKENDS[remembered.backend].joinable:
        return None
    try:
        return BACKENDS[remembered.backend].compile(network, example, remembered.precision, [example])
    except UsageError:  # for instance, the converted file is missing and cannot be made again
        return None


def _eager(network: nn.Module, example: Tensor) -> Runner:
    return BACKENDS["eager"].compile(network, example, "fp32", ())


def _largest(logits: Sequence[Tensor]) -> Size:
    return max(int(output.shape[-2]) for output in logits), max(int(output.shape[-1]) for output in logits)
