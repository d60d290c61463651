"""The fast ensemble: an ordinary ensemble whose members run on the backends that were measured to be best for them."""

import time
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.views import Viewed
from densemble.inference.execution import Execution, Tuned
from densemble.nets.dense import DenseModel
from densemble.nets.layers import resize
from densemble.nets.rewrite import for_inference
from densemble.shapes import Size


class SharedInput:
    """Images resized and normalized once for all members that want them alike; of one batch at a time."""

    def __init__(self) -> None:
        self._images: Callable[[], Tensor | None] = lambda: None
        self._made: dict[tuple[object, ...], Tensor] = {}

    def get(self, images: Tensor, key: tuple[object, ...], make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gives for these images, made at the first call with this key."""
        if self._images() is not images:
            self._images, self._made = weakref.ref(images), {}
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class FastMember(DenseModel):
    """A member whose network runs on a chosen backend, for batches of the shapes that it was tuned for.

    Other batches of a tuned image size are cut or filled up to a tuned number of images; anything else runs eagerly,
    or is tuned when it comes, as the execution has it.

    Args:
        model: already rewritten for inference.
        execution: how networks are run, shared by all members.
        inputs: shared by all members.
    """

    def __init__(self, model: DenseModel, execution: Execution, inputs: SharedInput) -> None:
        nn.Module.__init__(self)
        self.spec, self.loaded = model.spec, model.loaded
        self.backbone, self.head = model.backbone, model.head
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)
        self.execution = execution
        self.inputs = inputs
        self.tuned: dict[tuple[int, ...], list[Tuned]] = {}
        """By (C, H, W) of what the network sees; the most images first."""

    def resized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.resized`; done once for members that see images of one size."""
        size = self.seen_size((int(images.shape[-2]), int(images.shape[-1])))
        return self.inputs.get(images, size, lambda: DenseModel.resized(self, images))

    def normalized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.normalized`; done once for members that normalize alike."""
        size = self.seen_size((int(images.shape[-2]), int(images.shape[-1])))
        key = (size, self.spec.mean, self.spec.std)
        return self.inputs.get(images, key, lambda: DenseModel.normalized(self, images))

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``."""
        wanted: Size = self.spec.out_size or (int(images.shape[-2]), int(images.shape[-1]))
        normalized = self.normalized(images)
        return resize(self._grids(normalized, wanted), wanted)

    def _tune(self, normalized: Tensor, wanted: Size) -> Tuned:
        found = self.execution.tune(self, normalized, wanted)
        row = self.tuned.setdefault(tuple(normalized.shape[1:]), [])
        row.append(found)
        row.sort(key=lambda one: -one.batch)
        return found

    def _usable(self, normalized: Tensor, wanted: Size) -> list[Tuned]:
        return [one for one in self.tuned.get(tuple(normalized.shape[1:]), []) if one.serves(wanted)]

    def _grids(self, normalized: Tensor, wanted: Size) -> Tensor:
        usable = self._usable(normalized, wanted)
        if not usable and self.execution.always:
            usable = [self._tune(normalized, wanted)]
        elif not usable:
            started = time.perf_counter()
            grid = self.grid(normalized.contiguous(memory_format=torch.channels_last), wanted)
            if self.execution.worth(len(normalized), time.perf_counter() - started):
                self._tune(normalized, wanted)
            return grid
        if usable[0].batch == len(normalized):
            return usable[0].run(normalized)
        return _in_parts(normalized, usable)


def _in_parts(normalized: Tensor, tuned: Sequence[Tuned]) -> Tensor:
    """Any number of images through runners of fixed numbers, the last part filled up with its last image."""
    parts, start = [], 0
    while start < len(normalized):
        left = len(normalized) - start
        one = next((one for one in tuned if one.batch <= left), tuned[-1])
        part = normalized[start : start + one.batch]
        missing = one.batch - len(part)
        if missing > 0:
            part = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)])
        parts.append(one.run(part.contiguous())[: one.batch - missing])
        start += one.batch - missing
    return torch.cat(parts)


def fast(ensemble: Ensemble, execution: Execution) -> Ensemble:
    """The same ensemble on backends; its networks are tuned as pictures come.

    Args:
        ensemble: left as it is.
        execution: what may be chosen, and when.
    """
    inputs = SharedInput()
    made: dict[int, FastMember] = {}

    def ready(member: DenseModel | Viewed) -> DenseModel | Viewed:
        network = member.member if isinstance(member, Viewed) else member
        if id(network) not in made:
            lean = for_inference(network).to(memory_format=torch.channels_last)
            made[id(network)] = FastMember(lean, execution, inputs)
        found = made[id(network)]
        return Viewed(found, member.view.name) if isinstance(member, Viewed) else found

    return ensemble.with_members({name: ready(member) for name, member in ensemble.named_members()}).eval()


def accelerate(
    ensemble: Ensemble,
    images: Tensor,
    backend: str = "auto",
    precision: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Ensemble:
    """The same ensemble, every member on the backend and precision that are fastest for batches like this one.

    Args:
        ensemble: left as it is.
        images: real pictures ``(B, C, H, W)`` in [0, 1]: they give the shape, and the loss of a lower precision is
            measured on them.
        backend: a row of ``BACKENDS``, or ``auto``.
        precision: the lowest that may be chosen; ``auto``: bfloat16 where the hardware has it.
        say: told what was chosen.

    Raises:
        UsageError: no such backend or precision, or one that cannot be used here.
    """
    accelerated = fast(ensemble, Execution(backend, precision, ensemble.task.activation, say=say))
    with torch.inference_mode():
        accelerated(images)
    return accelerated


def choices(ensemble: Ensemble) -> dict[str, list[Tuned]]:
    """What was chosen for each member of a fast ensemble, by its name; empty for those not tuned."""
    found = {}
    for name, member in ensemble.named_members():
        network = member.member if isinstance(member, Viewed) else member
        rows = network.tuned.values() if isinstance(network, FastMember) else ()
        found[name] = [one for row in rows for one in row]
    return found
