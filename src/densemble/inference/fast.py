"""The fast ensemble: an ordinary ensemble whose members run on the backends that were measured to be best for them."""

import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.views import Viewed
from densemble.inference.execution import Execution, Grid, Tuned
from densemble.inference.joined import Joined
from densemble.inference.network import Build, TunedNetwork
from densemble.nets.cuts import REFERENCE_SIZE
from densemble.nets.dense import DenseModel
from densemble.nets.layers import resize
from densemble.nets.rewrite import for_inference
from densemble.nets.sharing import share
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
    """A member whose network runs on a backend, see :class:`TunedNetwork`.

    Args:
        model: already rewritten for inference.
        network: that runs it, alone or with others that share its beginning.
        place: of its logits among those of the network.
        inputs: shared by all members.
    """

    def __init__(self, model: DenseModel, network: TunedNetwork, place: int, inputs: SharedInput) -> None:
        nn.Module.__init__(self)
        self.spec, self.loaded = model.spec, model.loaded
        self.backbone, self.head = model.backbone, model.head
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)
        self.network, self.place, self.inputs = network, place, inputs

    def resized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.resized`; done once for members that see images of one size."""
        size = self.seen_size((int(images.shape[-2]), int(images.shape[-1])))
        return self.inputs.get(images, size, lambda: DenseModel.resized(self, images))

    def normalized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.normalized`; done once for members that normalize alike."""
        size = self.seen_size((int(images.shape[-2]), int(images.shape[-1])))
        key = (size, self.spec.mean, self.spec.std)
        return self.inputs.get(images, key, lambda: DenseModel.normalized(self, images))

    def coarse(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.coarse`."""
        return self.network.grids(self.normalized(images), self.map_size(images))[self.place]

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``."""
        return resize(self.coarse(images), self.map_size(images))


def fast(ensemble: Ensemble, execution: Execution, sharing: bool = True) -> Ensemble:
    """The same ensemble on backends; its networks are tuned as pictures come.

    Args:
        ensemble: left as it is.
        execution: what may be chosen, and when.
        sharing: members with the same beginning, such as a frozen backbone, run as one network: right where all
            members see the same pictures.
    """
    plain: dict[int, DenseModel] = {}
    for _, member in ensemble.named_members():
        network = member.member if isinstance(member, Viewed) else member
        if id(network) not in plain:
            plain[id(network)] = for_inference(network).to(memory_format=torch.channels_last)
    inputs = SharedInput()
    made: dict[int, FastMember] = {}
    for together in _clusters(plain, sharing):
        name = " + ".join(plain[key].spec.backbone for key in together)
        runs = TunedNetwork(name, _build([plain[key] for key in together]), execution, len(together))
        made |= {key: FastMember(plain[key], runs, place, inputs) for place, key in enumerate(together)}

    def ready(member: DenseModel | Viewed) -> DenseModel | Viewed:
        if isinstance(member, Viewed):
            return Viewed(made[id(member.member)], member.view.name)
        return made[id(member)]

    return ensemble.with_members({name: ready(member) for name, member in ensemble.named_members()}).eval()


def _build(models: Sequence[DenseModel]) -> Build:
    if len(models) == 1:
        return lambda seen, size: Grid(models[0].backbone, models[0].head, size)

    def build(seen: Size, size: Size | None) -> nn.Module:
        shared = share(models, seen, size)
        return shared or Joined([Grid(model.backbone, model.head, size) for model in models])

    return build


def _clusters(models: Mapping[int, DenseModel], sharing: bool) -> list[list[int]]:
    """Networks that have a beginning in common, and each of the others alone."""
    clusters: list[list[int]] = []
    for key, model in models.items():
        own = model.spec
        for cluster in clusters if sharing else ():
            others = [models[other] for other in cluster]
            first = others[0].spec
            # Networks that begin alike have at least this in common; to compare all of them takes longer.
            if (first.backbone, first.input_size, first.out_size) != (own.backbone, own.input_size, own.out_size):
                continue
            if not torch.equal(*(next(one.backbone.parameters()) for one in (others[0], model))):
                continue
            if share([*others, model], model.seen_size(own.input_size or REFERENCE_SIZE)) is not None:
                cluster.append(key)
                break
        else:
            clusters.append([key])
    return clusters


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
        own = member.member if isinstance(member, Viewed) else member
        rows = own.network.tuned.values() if isinstance(own, FastMember) else ()
        found[name] = [one for row in rows for one in row]
    return found
