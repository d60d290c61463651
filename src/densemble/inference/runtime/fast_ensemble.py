"""The fast ensemble: an ordinary ensemble whose members run on the backends that were measured to be best for them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.member_views import Viewed
from densemble.inference.runtime.execution import Execution, Tuned, say_nothing
from densemble.inference.runtime.per_batch_cache import PerBatchCache
from densemble.inference.runtime.shared_compilation import Together
from densemble.inference.runtime.tuned_network import TunedNetwork
from densemble.nets.cuts import REFERENCE_SIZE
from densemble.nets.dense import DenseModel
from densemble.nets.heads.layers import resize
from densemble.nets.rewrite import for_inference, same_tensors
from densemble.nets.sharing import share


class FastMember(DenseModel):
    """A member whose network runs on a backend, see :class:`TunedNetwork`.

    Args:
        model: left as it is; its weights stay where they are.
        network: that runs it, alone or with others that share its beginning.
        place: of its logits among those of the network.
        cache: shared by all members.
    """

    def __init__(self, model: DenseModel, network: TunedNetwork, place: int, cache: PerBatchCache) -> None:
        nn.Module.__init__(self)
        self.spec, self.loaded = model.spec, model.loaded
        own = same_tensors(model)
        self.backbone, self.head = own.backbone, own.head
        self.register_buffer("mean", own.mean)
        self.register_buffer("std", own.std)
        self.network, self.place, self.cache = network, place, cache

    def resized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.resized`; done once for members that see images of one size."""
        size = self.seen_size((int(images.shape[-2]), int(images.shape[-1])))
        return self.cache.get(images, ("resized", size), lambda: DenseModel.resized(self, images))

    def normalized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.normalized`; done once for members that normalize alike."""
        size = self.seen_size((int(images.shape[-2]), int(images.shape[-1])))
        key = ("normalized", size, self.spec.mean, self.spec.std)
        return self.cache.get(images, key, lambda: DenseModel.normalized(self, images))

    @torch.no_grad()
    def coarse(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.coarse`."""
        return self.network.grids(self.normalized(images), self.map_size(images))[self.place]

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``."""
        return resize(self.coarse(images), self.map_size(images))


def fast(ensemble: Ensemble, execution: Execution, together: bool = True) -> Ensemble:
    """The same ensemble on backends; its networks are tuned as images come.

    Args:
        ensemble: left as it is. Members with forward hooks run as they are, so that the hooks are called.
        execution: what may be chosen, and when.
        together: members share what they can: the same beginning, such as a frozen backbone, runs once, and networks
            compute in the same memory. All of them run when one is asked, which is right where all members see the
            same images, and wrong for cascades.
    """
    plain: dict[int, DenseModel] = {}
    alone: set[int] = set()  # networks that also see images mirrored, turned or scaled
    for name, member in ensemble.named_members():
        network = member.member if isinstance(member, Viewed) else member
        if has_hooks(member):
            execution.say(f"{name}: runs as it is, for it has forward hooks")
            continue
        plain[id(network)] = network
        if isinstance(member, Viewed) or not together:
            alone.add(id(network))
    cache = PerBatchCache()
    company = Together(cache)
    made: dict[int, FastMember] = {}
    for cluster in [
        *_clusters({key: own for key, own in plain.items() if key not in alone}),
        *([key] for key in alone),
    ]:
        shared = None if cluster[0] in alone else company
        runs = TunedNetwork([plain[key] for key in cluster], execution, cache, shared)
        made |= {key: FastMember(plain[key], runs, place, cache) for place, key in enumerate(cluster)}

    def ready(member: DenseModel | Viewed) -> DenseModel | Viewed:
        network = member.member if isinstance(member, Viewed) else member
        if has_hooks(member):
            return member
        quick = made[id(network)].eval()
        return Viewed(quick, member.view.name).eval() if isinstance(member, Viewed) else quick

    lean = ensemble.with_members({name: ready(member) for name, member in ensemble.named_members()})
    lean.training = lean.members.training = False  # members with hooks are the user's, in whatever mode
    return lean


def has_hooks(module: nn.Module) -> bool:
    """Whether a forward pass of the module calls hooks: rewritten and compiled networks would not."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def _clusters(models: Mapping[int, DenseModel]) -> list[list[int]]:
    """Networks that have a beginning in common, and each of the others alone."""
    clusters: list[list[int]] = []
    for key, model in models.items():
        own = model.spec
        for cluster in clusters:
            others = [models[other] for other in cluster]
            first = others[0].spec
            # Networks that begin alike have at least this in common; to compare all of them takes longer.
            if (first.backbone, first.input_size, first.out_size) != (own.backbone, own.input_size, own.out_size):
                continue
            if not torch.equal(*(next(one.backbone.parameters()) for one in (others[0], model))):
                continue
            rewritten = [for_inference(one) for one in (*others, model)]
            if share(rewritten, model.seen_size(own.input_size or REFERENCE_SIZE)) is not None:
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
    say: Callable[[str], None] = say_nothing,
    together: bool = True,
) -> Ensemble:
    """The same ensemble, every member on the backend and precision that are fastest for batches like this one.

    Args:
        ensemble: left as it is.
        images: real images ``(B, C, H, W)`` in [0, 1]: they give the shape, and the loss of a lower precision is
            measured on them.
        backend: a row of ``BACKENDS``, or ``auto``.
        precision: the lowest that may be chosen; ``auto``: bfloat16 where the hardware has it.
        say: told what was chosen.
        together: see :func:`fast`.

    Raises:
        UsageError: no such backend or precision, or one that cannot be used here.
    """
    accelerated = fast(ensemble, Execution(backend, precision, ensemble.task.activation, say=say), together)
    with torch.no_grad():
        accelerated(images)
        accelerated(images.view_as(images))  # networks that share memory are joined
    return accelerated


def choices(ensemble: Ensemble) -> dict[str, list[Tuned]]:
    """What was chosen for each member of a fast ensemble, by its name; empty for those not tuned."""
    found = {}
    for name, member in ensemble.named_members():
        own = member.member if isinstance(member, Viewed) else member
        rows = own.network.tuned.values() if isinstance(own, FastMember) else ()
        found[name] = [one for row in rows for one in row]
    return found
