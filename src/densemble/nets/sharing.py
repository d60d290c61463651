"""Share work between models: common parts, such as frozen stems or whole backbones, run once per image."""

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
from densemble.shapes import Size, size_of

MIN_SAVED = 0.05
"""Smallest share of saved multiply-accumulates for which sharing is worthwhile."""

_COMPARABLE = (bool, int, float, complex, str, bytes, set, slice, torch.dtype, torch.device, torch.Size)


class Shared(nn.Module):
    """Several models as one network that runs their common part once.

    It maps normalized images ``(B, C, H, W)`` to logits ``(B, K, h, w)`` of each model, bit-equal to
    :meth:`DenseModel.grid`.

    Attributes:
        saved: saved share of the multiply-accumulates of all models, 0..1.
    """

    def __init__(self, trunk: nn.Module, heads: Sequence[DenseHead], size: Size | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)
        self.size = size
        self.saved = 0.0

    def forward(self, normalized: Tensor) -> tuple[Tensor, ...]:
        """Normalized images ``(B, C, H, W)`` -> logits ``(B, K, h, w)`` of each model, in order."""
        maps = self.trunk(normalized)
        return tuple(head.grid(m, self.size) for head, m in zip(self.heads, maps, strict=True))  # type: ignore[operator]


def share(models: Sequence[DenseModel], input_size: Size, size: Size | None = None) -> Shared | None:
    """Merge models into one network that runs their common part once.

    Args:
        models: in eval mode, as they are or after :func:`for_inference`; their weights are used, not copied.
        input_size: (H, W) of the normalized images.
        size: (h, w) of the output, see :meth:`DenseModel.grid`.

    Returns:
        ``None`` if the saved share is below ``MIN_SAVED``, or if the models resize or normalize images differently.
    """
    if len(models) < 2 or not all(_same_inputs(models[0], model, input_size) for model in models):
        return None
    backbones = [model.backbone for model in models]
    if all(alike(backbones[0], backbone) for backbone in backbones[1:]):
        trunk: nn.Module = _SameTrunk(backbones[0], len(models))
    elif all(isinstance(backbone, GraphBackbone) for backbone in backbones):
        trunk = MergedTrunk([backbone for backbone in backbones if isinstance(backbone, GraphBackbone)])
    else:
        return None
    shared = Shared(trunk, [model.head for model in models], size).eval()
    shared.saved = _saved_share(shared, models, input_size)
    return shared if shared.saved >= MIN_SAVED else None


def _same_inputs(first: DenseModel, other: DenseModel, size: Size) -> bool:
    a, b = first.spec, other.spec
    same_normalization = (a.mean, a.std, a.in_channels) == (b.mean, b.std, b.in_channels)
    return (
        other.network_size(size) == size
        and same_normalization
        and alike(first.backbone.adapter, other.backbone.adapter)
    )


def _saved_share(shared: Shared, models: Sequence[DenseModel], input_size: Size) -> float:
    images = probe(input_size, str(models[0].mean.device), models[0].spec.in_channels)
    separate = 0
    for model in models:
        with counting(model) as counter:
            model.grid(images, shared.size)
        separate += counter.get_total_flops()
    with counting(shared) as counter:
        shared(images)
    return 1 - counter.get_total_flops() / separate


class _SameTrunk(nn.Module):
    """One backbone for several heads."""

    def __init__(self, backbone: CutBackbone, count: int) -> None:
        super().__init__()
        self.backbone, self.count = backbone, count

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """The same feature maps for each model."""
        return [self.backbone(x)] * self.count


class MergedTrunk(nn.Module):
    """Several graphs as one: their longest common prefix, then the remaining nodes of each."""

    def __init__(self, backbones: Sequence[GraphBackbone]) -> None:
        super().__init__()
        self.adapter = backbones[0].adapter
        self.network = _merged([backbone.network for backbone in backbones])
        self.nodes: list[list[tuple[str, Layout]]] = [
            list(zip(backbone.nodes, backbone.layouts, strict=True)) for backbone in backbones
        ]

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Feature maps of each model, in the order of its nodes."""
        outputs: list[dict[str, Tensor]] = self.network(x if self.adapter is None else self.adapter(x))
        return [
            [to_nchw(maps[node], layout, size_of(x)) for node, layout in nodes]
            for maps, nodes in zip(outputs, self.nodes, strict=True)
        ]


def _merged(networks: Sequence[fx.GraphModule]) -> fx.GraphModule:
    """One graph that returns a list of the results of all graphs."""
    root, graph, common = nn.Module().eval(), fx.Graph(), _common_length(networks)
    prefix: dict[fx.Node, fx.Node] = {}
    results: list[Any] = []
    for number, network in enumerate(networks):
        root.add_module(str(number), network)
        nodes = list(network.graph.nodes)
        if number == 0:
            for node in nodes[:common]:
                prefix[node] = _copy(graph, node, prefix, "0")
        copies = dict(zip(nodes, prefix.values(), strict=False))
        for node in nodes[common:]:
            if node.op == "output":
                results.append(fx.map_arg(node.args[0], copies.__getitem__))
                break
            changed = node.args[0] if overwrites(network, node) else None
            if isinstance(changed, fx.Node) and copies[changed] in prefix.values():
                copies[changed] = graph.call_function(torch.clone, (copies[changed],))  # other models use it, too
            copies[node] = _copy(graph, node, copies, str(number))
    graph.output(results)
    return fx.GraphModule(root, graph)


def _copy(graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node], owner: str) -> fx.Node:
    copied = graph.node_copy(node, copies.__getitem__)
    if node.op in ("call_module", "get_attr"):
        copied.target = f"{owner}.{node.target}"
    return copied


def _common_length(networks: Sequence[fx.GraphModule]) -> int:
    """Length of the longest common prefix of all graphs, in nodes."""
    numbers = [{node: number for number, node in enumerate(network.graph.nodes)} for network in networks]

    def same(nodes: tuple[fx.Node, ...]) -> bool:
        pairs = zip(nodes[1:], networks[1:], numbers[1:], strict=True)
        first = _operation(nodes[0], networks[0], numbers[0])
        return nodes[0].op != "output" and all(alike(first, _operation(*pair)) for pair in pairs)

    return len(list(takewhile(same, zip(*(network.graph.nodes for network in networks), strict=False))))


def _operation(node: fx.Node, network: fx.GraphModule, numbers: dict[fx.Node, int]) -> tuple[Any, ...]:
    """Operation and arguments of a node, comparable between graphs."""
    target: Any = node.target
    if node.op == "call_module":
        target = network.get_submodule(str(node.target))
    elif node.op == "get_attr":
        target = attrgetter(str(node.target))(network)
    elif node.op == "placeholder":
        target = None
    arguments = fx.map_arg((node.args, node.kwargs), lambda argument: ("node", numbers[argument]))
    return node.op, target, arguments


def alike(a: object, b: object) -> bool:
    """Whether two modules or plain values have equal types, weights and settings, compared recursively.

    Values that cannot be compared count as different.
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
    return isinstance(a, _COMPARABLE) and a == b
