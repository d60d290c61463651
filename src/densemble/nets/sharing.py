"""Shared work: what several models compute alike from one image, frozen stems or whole backbones, runs once."""

from collections.abc import Sequence
from itertools import takewhile
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from densemble.nets.axis_order import Layout, to_nchw
from densemble.nets.counting import counting, probe
from densemble.nets.dense import DenseModel
from densemble.nets.heads.head import DenseHead
from densemble.nets.in_place import overwrites
from densemble.nets.trunks import CutBackbone, GraphBackbone
from densemble.shapes import Size

LEAST_SAVED = 0.05
"""Share of the multiply-accumulates below which sharing is not worth it."""

_PLAIN = (bool, int, float, complex, str, bytes, set, slice, torch.dtype, torch.device, torch.Size)


class Shared(nn.Module):
    """Several models as one network that runs once what is common to all: normalized images ``(B, C, H, W)`` -> one
    grid of logits ``(B, K, h, w)`` per model, the same to the bit as :meth:`DenseModel.grid` gives.

    Attributes:
        saved: share of the models' multiply-accumulates that is not done, 0..1.
    """

    def __init__(self, trunk: nn.Module, heads: Sequence[DenseHead], size: Size | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)
        self.size = size
        self.saved = 0.0

    def forward(self, normalized: Tensor) -> tuple[Tensor, ...]:
        """Normalized images ``(B, C, H, W)`` -> logits ``(B, K, h, w)`` of each model, in their order."""
        maps = self.trunk(normalized)
        return tuple(head.grid(own, self.size) for head, own in zip(self.heads, maps, strict=True))  # type: ignore[operator]


def share(models: Sequence[DenseModel], seen: Size, size: Size | None = None) -> Shared | None:
    """Models as one network whose common work is done once.

    Args:
        models: in eval mode, in any form that :func:`for_inference` leaves; their weights are used, not copied.
        seen: (H, W) of the normalized images.
        size: (h, w) of the wanted maps, see :meth:`DenseModel.grid`.

    Returns:
        ``None`` where too little (``LEAST_SAVED``) is common, or the models see images differently.
    """
    if len(models) < 2 or not all(_see_alike(models[0], model, seen) for model in models):
        return None
    backbones = [model.backbone for model in models]
    if all(alike(backbones[0], backbone) for backbone in backbones[1:]):
        trunk: nn.Module = _SameTrunk(backbones[0], len(models))
    elif all(isinstance(backbone, GraphBackbone) for backbone in backbones):
        trunk = MergedTrunk([backbone for backbone in backbones if isinstance(backbone, GraphBackbone)])
    else:
        return None
    shared = Shared(trunk, [model.head for model in models], size).eval()
    shared.saved = _saved(shared, models, seen)
    return shared if shared.saved >= LEAST_SAVED else None


def _see_alike(first: DenseModel, other: DenseModel, seen: Size) -> bool:
    a, b = first.spec, other.spec
    channels_alike = (a.mean, a.std, a.in_channels) == (b.mean, b.std, b.in_channels)
    return other.seen_size(seen) == seen and channels_alike and alike(first.backbone.adapter, other.backbone.adapter)


def _saved(shared: Shared, models: Sequence[DenseModel], seen: Size) -> float:
    images = probe(seen, str(models[0].mean.device), models[0].spec.in_channels)
    plain = 0
    for model in models:
        with counting(model) as counter:
            model.grid(images, shared.size)
        plain += counter.get_total_flops()
    with counting(shared) as counter:
        shared(images)
    return 1 - counter.get_total_flops() / plain


class _SameTrunk(nn.Module):
    """One backbone for several heads."""

    def __init__(self, backbone: CutBackbone, count: int) -> None:
        super().__init__()
        self.backbone, self.count = backbone, count

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """The same maps for each model."""
        return [self.backbone(x)] * self.count


class MergedTrunk(nn.Module):
    """Several graphs as one: the longest common beginning, then what is each one's own."""

    def __init__(self, backbones: Sequence[GraphBackbone]) -> None:
        super().__init__()
        self.adapter = backbones[0].adapter
        self.network = _merged([backbone.network for backbone in backbones])
        self.wanted: list[list[tuple[str, Layout]]] = [
            list(zip(backbone.nodes, backbone.layouts, strict=True)) for backbone in backbones
        ]

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Each model's maps, in the order of its nodes."""
        found: list[dict[str, Tensor]] = self.network(x if self.adapter is None else self.adapter(x))
        size: Size = (int(x.shape[-2]), int(x.shape[-1]))
        return [
            [to_nchw(own[node], layout, size) for node, layout in nodes]
            for own, nodes in zip(found, self.wanted, strict=True)
        ]


def _merged(networks: Sequence[fx.GraphModule]) -> fx.GraphModule:
    """One graph that returns what each returns, in a list."""
    root, graph, common = nn.Module().eval(), fx.Graph(), _common(networks)
    beginning: dict[fx.Node, fx.Node] = {}
    results: list[Any] = []
    for number, network in enumerate(networks):
        root.add_module(str(number), network)
        nodes = list(network.graph.nodes)
        if number == 0:
            for node in nodes[:common]:
                beginning[node] = _copy(graph, node, beginning, "0")
        own = dict(zip(nodes, beginning.values(), strict=False))
        for node in nodes[common:]:
            if node.op == "output":
                results.append(fx.map_arg(node.args[0], own.__getitem__))
                break
            changed = node.args[0] if overwrites(network, node) else None
            if isinstance(changed, fx.Node) and own[changed] in beginning.values():
                own[changed] = graph.call_function(torch.clone, (own[changed],))  # the others need it as it is
            own[node] = _copy(graph, node, own, str(number))
    graph.output(results)
    return fx.GraphModule(root, graph)


def _copy(graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node], owner: str) -> fx.Node:
    copied = graph.node_copy(node, copies.__getitem__)
    if node.op in ("call_module", "get_attr"):
        copied.target = f"{owner}.{node.target}"
    return copied


def _common(networks: Sequence[fx.GraphModule]) -> int:
    """How many nodes from the beginning are alike in all graphs."""
    numbers = [{node: number for number, node in enumerate(network.graph.nodes)} for network in networks]

    def same(nodes: tuple[fx.Node, ...]) -> bool:
        pairs = zip(nodes[1:], networks[1:], numbers[1:], strict=True)
        first = _meaning(nodes[0], networks[0], numbers[0])
        return nodes[0].op != "output" and all(alike(first, _meaning(*pair)) for pair in pairs)

    return len(list(takewhile(same, zip(*(network.graph.nodes for network in networks), strict=False))))


def _meaning(node: fx.Node, network: fx.GraphModule, numbers: dict[fx.Node, int]) -> tuple[Any, ...]:
    """What a node computes, comparable between graphs."""
    what: Any = node.target
    if node.op == "call_module":
        what = network.get_submodule(str(node.target))
    elif node.op == "get_attr":
        what = attrgetter(str(node.target))(network)
    elif node.op == "placeholder":
        what = None
    arguments = fx.map_arg((node.args, node.kwargs), lambda one: ("node", numbers[one]))
    return node.op, what, arguments


def alike(a: object, b: object) -> bool:
    """Whether two modules or plain values are of the same kind with equal weights and settings, all the way down.

    What cannot be compared counts as different.
    """
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape) and torch.equal(a, b)
    if isinstance(a, nn.Module):
        return alike(vars(a), vars(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, _PLAIN) and a == b
