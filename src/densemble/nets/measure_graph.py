"""Measure every node of a traced graph as a cut."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.flop_counter import FlopCounterMode

from densemble.nets import receptive_field as fields
from densemble.nets.axis_order import map_layout
from densemble.nets.checkpointing import separating
from densemble.nets.counting import BATCH, counting, probe
from densemble.nets.cut import Cut
from densemble.shapes import Size


@dataclass(frozen=True)
class Traced:
    """A graph module and the qualified name of each of its nodes."""

    module: fx.GraphModule
    names: dict[fx.Node, str]


class _Measure(fx.Interpreter):
    """Run a graph and record shape, multiply-accumulates and receptive field of every node."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter = counter
        self.before = 0
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.macs: dict[fx.Node, int] = {}
        self.fields: dict[fx.Node, fields.Field] = {}

    def attempt(self, images: Tensor) -> tuple[Any, str]:
        """(result of the graph, ""); if it fails, (``None``, message), and the nodes before the failure are recorded.

        The last layers may not accept a size (a pooling window larger than its input); earlier maps are valid.
        """
        try:
            return self.run(images), ""
        except Exception as error:
            return None, (str(error).splitlines() or [type(error).__name__])[0]

    def run_node(self, n: fx.Node) -> Any:
        self.fields[n] = None
        result = super().run_node(n)
        total = int(self.counter.get_total_flops())
        self.macs[n], self.before = (total - self.before) // (2 * BATCH), total
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        self.fields[n] = self._field(n, result)
        return result

    def _field(self, n: fx.Node, result: Any) -> fields.Field:
        if n.op == "placeholder":
            return fields.IMAGE
        if n.op not in ("call_module", "call_function", "call_method"):
            return None
        target = self.fetch_attr(str(n.target)) if n.op == "call_module" else n.target
        before = [self.fields[node] for node in n.all_input_nodes if node in self.shapes or node.op != "get_attr"]
        inputs, options = self.fetch_args_kwargs_from_env(n)
        return fields.through(target, before, inputs, options, result)


def measure_graph(graph: Traced, size: Size, device: str, channels: int) -> tuple[list[Cut], int, str]:
    """(cuts, multiply-accumulates of the whole graph, error of the run): one cut per node with a feature map."""
    with counting(graph.module) as counter:
        run = _Measure(graph.module, counter)
        result, failure = run.attempt(probe(size, device, channels))
    names = _short_names(graph)
    separators = separating(graph.module.graph)
    listed = listed_nodes(graph.module.graph)
    work = _Work(graph.module, run.macs)
    scores = _first_scores(graph.module, result)
    cuts = []
    for node in takewhile(lambda node: node is not scores, run.shapes):
        shape = run.shapes[node]
        layout = map_layout(shape, size)
        if layout is None or not _may_be_cut(graph, node, node in listed):
            continue
        channels, height, width = shape[1:] if layout == "NCHW" else (shape[3], shape[1], shape[2])
        field = run.fields[node] if layout == "NCHW" else None
        macs, parameters = work.up_to(node)
        cuts.append(
            Cut(
                node=names[node],
                channels=channels,
                height=height,
                width=width,
                stride=(size[0] / height, size[1] / width),
                macs=macs,
                parameters=parameters,
                receptive_field=_extent(field),
                offset=_centre(field),
                separates=node in separators or node in listed,
                input_size=size,
                graph_node=graph.names[node],
                layout=layout,
                listed=node in listed,
            )
        )
    return cuts, sum(run.macs.values()), failure


def _may_be_cut(graph: Traced, node: fx.Node, listed: bool) -> bool:
    """Whether a node may be a cut; dropout may not, because it removes part of its map in training."""
    if node.op not in ("call_module", "call_function", "call_method") or node not in graph.names:
        return False
    dropout = node.op == "call_module" and isinstance(graph.module.get_submodule(str(node.target)), _DropoutNd)
    return listed or not dropout


def listed_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that a graph returns in a list, tuple, dictionary or dataclass; empty if it returns one value."""
    (value,) = next(node for node in graph.nodes if node.op == "output").args
    return set() if isinstance(value, fx.Node) and not _builds(value) else set(_nodes_in(value))


def _nodes_in(value: Any) -> Iterator[fx.Node]:
    nodes: list[fx.Node] = []
    fx.map_arg(value, nodes.append)
    for node in nodes:
        yield from _nodes_in((node.args, node.kwargs)) if _builds(node) else [node]


def _builds(node: fx.Node) -> bool:
    """Whether a node constructs a dataclass of tensors."""
    return node.op == "call_function" and isinstance(node.target, type)


def _first_scores(module: fx.GraphModule, result: Any) -> fx.Node | None:
    """The final 1x1 convolution before the pooling of a classifier (SqueezeNet), whose output is no feature map."""
    called = [node for node in module.graph.nodes if node.op == "call_module"]
    learned = [node for node in called if any(True for _ in module.get_submodule(str(node.target)).parameters())]
    if not learned or not isinstance(result, Tensor) or result.ndim != 2:
        return None
    last = module.get_submodule(str(learned[-1].target))
    is_classifier = isinstance(last, nn.Conv2d) and last.kernel_size == (1, 1) and last.out_channels == result.shape[1]
    return learned[-1] if is_classifier else None


def _extent(field: fields.Field) -> Size | None:
    return None if field is None else (field[0].high - field[0].low + 1, field[1].high - field[1].low + 1)


def _centre(field: fields.Field) -> tuple[float, float] | None:
    return None if field is None else ((field[0].low + field[0].high) / 2, (field[1].low + field[1].high) / 2)


class _Work:
    """Multiply-accumulates and parameters of a node and of everything that it depends on."""

    def __init__(self, module: fx.GraphModule, macs: dict[fx.Node, int]) -> None:
        self.module = module
        self.macs = macs
        self.order = list(macs)
        self.index = {node: i for i, node in enumerate(self.order)}
        self.ancestors: dict[fx.Node, int] = {}  # sets of nodes as bits, each node included
        self.parameters = [self._parameters_of(node) for node in self.order]

    def _parameters_of(self, node: fx.Node) -> dict[int, int]:
        if node.op == "call_module":
            return {id(p): p.numel() for p in self.module.get_submodule(str(node.target)).parameters()}
        if node.op == "get_attr":
            value = attrgetter(str(node.target))(self.module)
            return {id(value): value.numel()} if isinstance(value, nn.Parameter) else {}
        return {}

    def up_to(self, node: fx.Node) -> tuple[int, int]:
        """(multiply-accumulates, parameters) up to a node; call it in graph order."""
        for earlier in self.order[len(self.ancestors) : self.index[node] + 1]:
            bits = 1 << self.index[earlier]
            for source in earlier.all_input_nodes:
                bits |= self.ancestors[source]
            self.ancestors[earlier] = bits
        used = [i for i in range(self.index[node] + 1) if self.ancestors[node] >> i & 1]
        parameters: dict[int, int] = {}
        for i in used:
            parameters.update(self.parameters[i])
        return sum(self.macs[self.order[i]] for i in used), sum(parameters.values())


def _short_names(graph: Traced) -> dict[fx.Node, str]:
    """Name of each node: the path of a module, or for an operator the outermost block that ends with it."""
    names, nodes = graph.names, graph.module.graph.nodes
    modules = {name for name, _ in graph.module.named_modules()}
    last: dict[str, fx.Node] = {}
    for node in nodes:
        for prefix in _prefixes(names.get(node, "")):
            last[prefix] = node
    short = {}
    for node in nodes:
        name = names.get(node, "")
        short[node] = name if name in modules else next((p for p in _prefixes(name) if last[p] is node), name)
    return short


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
