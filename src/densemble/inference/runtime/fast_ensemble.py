"""The fast ensemble: an ordinary ensemble whose members run on the backends that were measured as fastest."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.ensemble_arguments import Member
from densemble.ensemble.member_views import ViewedMember
from densemble.inference.runtime.backends import BACKENDS
from densemble.inference.runtime.execution import Execution, TunedRunner
from densemble.inference.runtime.per_batch_cache import PerBatchCache
from densemble.inference.runtime.shared_compilation import SharedCompilation
from densemble.inference.runtime.tuned_network import TunedNetwork
from densemble.nets.cuts import REFERENCE_SIZE
from densemble.nets.dense import DenseModel
from densemble.nets.heads.layers import resize
from densemble.nets.rewrite import for_inference, same_tensors
from densemble.nets.sharing import share
from densemble.shapes import size_of

log = logging.getLogger(__name__)


class FastMember(DenseModel):
    """A member whose network runs on a backend, see :class:`TunedNetwork`.

    Args:
        model: not changed; its weights stay in the same memory.
        network: runs the model, alone or with others that share its first part.
        index: index of the model's logits among the outputs of the network.
        cache: shared by all members.
    """

    def __init__(self, model: DenseModel, network: TunedNetwork, index: int, cache: PerBatchCache) -> None:
        nn.Module.__init__(self)
        self.spec, self.loaded = model.spec, model.loaded
        copy = same_tensors(model)
        self.backbone, self.head = copy.backbone, copy.head
        self.register_buffer("mean", copy.mean)
        self.register_buffer("std", copy.std)
        self.network, self.index, self.cache = network, index, cache

    def resized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.resized`; computed once for members with equal input sizes."""
        key = ("resized", self.network_size(size_of(images)))
        return self.cache.get(images, key, lambda: DenseModel.resized(self, images))

    def normalized(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.normalized`; computed once for members with equal input sizes and normalization."""
        key = ("normalized", self.network_size(size_of(images)), self.spec.mean, self.spec.std)
        return self.cache.get(images, key, lambda: DenseModel.normalized(self, images))

    @torch.no_grad()
    def coarse(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.coarse`."""
        return self.network.grids(self.normalized(images), self.map_size(images))[self.index]

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``."""
        return resize(self.coarse(images), self.map_size(images))


def network_of(member: Member) -> DenseModel:
    """The network of a member, without its view."""
    return member.member if isinstance(member, ViewedMember) else member


def make_fast_ensemble(ensemble: Ensemble, execution: Execution, shared: bool = True) -> Ensemble:
    """The same ensemble on backends; its networks are tuned as images come.

    Args:
        ensemble: not changed. Members with forward hooks run unchanged, so that the hooks are called.
        execution: which backends and precisions are permitted, and when networks are tuned.
        shared: members share computation: a common first part, such as a frozen backbone, runs once, and networks
            compute in the same memory. A call of one member then runs all of them. Use it if all members see the same
            images, and not for cascades.
    """
    plain: dict[int, DenseModel] = {}
    separate: set[int] = set()  # networks that also see mirrored, rotated or scaled images
    for name, member in ensemble.named_members():
        network = network_of(member)
        if has_hooks(member):
            log.info(f"{name}: runs unchanged, because it has forward hooks")
            continue
        plain[id(network)] = network
        if isinstance(member, ViewedMember) or not shared:
            separate.add(id(network))
    cache = PerBatchCache()
    compilation = SharedCompilation(cache)
    made: dict[int, FastMember] = {}
    clusters = _clusters({key: network for key, network in plain.items() if key not in separate})
    for cluster in [*clusters, *([key] for key in separate)]:
        joined_with = None if cluster[0] in separate else compilation
        tuned = TunedNetwork([plain[key] for key in cluster], execution, cache, joined_with)
        made |= {key: FastMember(plain[key], tuned, index, cache) for index, key in enumerate(cluster)}

    def fast_member(member: Member) -> Member:
        if has_hooks(member):
            return member
        fast = made[id(network_of(member))].eval()
        return ViewedMember(fast, member.view.name).eval() if isinstance(member, ViewedMember) else fast

    result = ensemble.with_members({name: fast_member(member) for name, member in ensemble.named_members()})
    result.training = result.members.training = False  # members with hooks keep the mode that the user set
    return result


def execution_of(ensemble: Ensemble) -> str:
    """Return backend and precision of a fast ensemble's networks, of each member if they differ: ``inductor bf16``.

    Networks that were not tuned, because that would take longer than the images, run in eager fp32.
    """
    used = {}
    for name, member in ensemble.named_members():
        network = network_of(member)
        runners = network.network.tuned.values() if isinstance(network, FastMember) else ()
        choices = {f"{tuned.choice.backend} {tuned.choice.precision}" for shape in runners for tuned in shape}
        used[name] = " or ".join(sorted(choices)) or "eager fp32"
    if len(set(used.values())) == 1:
        return next(iter(used.values()))
    return ", ".join(f"{name}: {execution}" for name, execution in used.items())


def is_recordable(ensemble: Ensemble) -> bool:
    """Whether all networks of a fast ensemble are tuned and can be parts of one recording."""
    for _, member in ensemble.named_members():
        network = network_of(member)
        if not isinstance(network, FastMember) or not network.network.tuned:
            return False
        choices = [tuned.choice for runners in network.network.tuned.values() for tuned in runners]
        if not all(BACKENDS[choice.backend].recordable for choice in choices):
            return False
    return True


def has_hooks(module: nn.Module) -> bool:
    """Whether a forward pass of the module calls hooks, which rewritten and compiled networks would not call."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def _clusters(models: Mapping[int, DenseModel]) -> list[list[int]]:
    """Groups of networks with a common first part; every other network is a group by itself."""
    clusters: list[list[int]] = []
    for key, model in models.items():
        spec = model.spec
        for cluster in clusters:
            others = [models[other] for other in cluster]
            first = others[0].spec
            # Cheap necessary conditions first; comparing whole networks takes longer.
            if (first.backbone, first.input_size, first.out_size) != (spec.backbone, spec.input_size, spec.out_size):
                continue
            if not torch.equal(*(next(network.backbone.parameters()) for network in (others[0], model))):
                continue
            rewritten = [for_inference(network) for network in (*others, model)]
            if share(rewritten, model.network_size(spec.input_size or REFERENCE_SIZE)) is not None:
                cluster.append(key)
                break
        else:
            clusters.append([key])
    return clusters


def accelerate(
    ensemble: Ensemble, images: Tensor, backend: str = "auto", precision: str = "auto", shared: bool = True
) -> Ensemble:
    """The same ensemble, each member on the fastest backend and precision for batches like this one.

    Args:
        ensemble: not changed.
        images: real images ``(B, C, H, W)`` in [0, 1]: they give the shape, and the error of a lower precision is
            measured on them.
        backend: a row of ``BACKENDS``, or ``auto``.
        precision: the lowest permitted precision; ``auto``: bfloat16 if the hardware supports it.
        shared: see :func:`make_fast_ensemble`.

    Raises:
        UsageError: no such backend or precision, or one that cannot be used here.
    """
    accelerated = make_fast_ensemble(ensemble, Execution(backend, precision, ensemble.task.activation), shared)
    with torch.no_grad():
        accelerated(images)
        accelerated(images.view_as(images))  # the second batch joins networks that share memory
    return accelerated


def choices(ensemble: Ensemble) -> dict[str, list[TunedRunner]]:
    """The tuned runners of each member of a fast ensemble, by member name; empty for members that are not tuned."""
    result = {}
    for name, member in ensemble.named_members():
        network = network_of(member)
        by_shape = network.network.tuned.values() if isinstance(network, FastMember) else ()
        result[name] = [tuned for runners in by_shape for tuned in runners]
    return result
