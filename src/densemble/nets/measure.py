"""Measuring: a classifier runs once on a probe image and every place in it notes what it is worth as a cut."""

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from densemble.errors import UsageError
from densemble.nets import receptive_field as fields
from densemble.nets.checkpointing import separating
from densemble.nets.cut import Cut, Layout
from densemble.nets.sizes import InputRule, find_rule
from densemble.nets.trunks import stage_names, stages
from densemble.shapes import Size, format_size

BATCH = 2  # windows of attention are folded into the batch axis: a tensor that still has two pictures is a map
GRAPH_SHARE = 0.5
POOLED_FROM = 96  # a map of one pixel is what is left of a small image, and of a larger one its average


@dataclass(frozen=True)
class Measured:
    """What is known of a classifier.

    Attributes:
        cuts: every node with a feature map, in the order of the network, those inside blocks included.
        rule: the sizes it takes.
        macs: multiply-accumulates of the whole classifier for one image of the size that was asked for.
        parameters: of the whole classifier.
    """

    cuts: tuple[Cut, ...]
    rule: InputRule
    macs: int
    parameters: int


def probe(size: Size, device: str, channels: int = 3) -> Tensor:
    """Two black pictures ``(2, C, H, W)``."""
    return torch.zeros(BATCH, channels, *size, device=device)


def measure(model: nn.Module, graph: "Traced | UsageError", size: Size, own_size: Size | None) -> Measured:
    """Measures all places of a classifier.

    Args:
        model: the classifier, in eval mode; best on the meta device, where nothing is computed.
        graph: its traced graph, or why there is none.
        size: (H, W) of the input; the nearest permitted one is taken.
        own_size: the size it was pretrained at.

    Raises:
        UsageError: it neither runs on an image nor can be traced.
    """
    device = _device(model)

    def runs(tried: Size) -> bool:
        return _failure(model, tried, device) is None

    found = find_rule(runs, own_size)
    rule = found or InputRule()
    actual = rule.nearest(size)
    parameters = sum(p.numel() for p in model.parameters())
    cuts: list[Cut] = []
    macs, failure = 0, ""
    if not isinstance(graph, UsageError):
        cuts, macs, failure = _measure_graph(graph, actual, device)
    reach = max((cut.macs for cut in cuts if cut.separates), default=0)
    if (not macs or reach < GRAPH_SHARE * macs) and hasattr(model, "forward_intermediates"):
        # A transformer's graph has no map after its patches; its own stages do.
        rule = _stage_rule(model, own_size or actual, device) or rule
        actual = rule.nearest(size)
        macs = count_macs(model, actual, device)
        return Measured(tuple(_measure_stages(model, actual, device)), rule, macs, parameters)
    if isinstance(graph, UsageError):
        raise graph
    if failure and not cuts:
        raise UsageError(f"{type(model).__name__} does not run on a 3-channel image of {format_size(size)}: {failure}")
    return Measured(tuple(cuts), rule, macs, parameters)


def _device(model: nn.Module) -> str:
    return next((str(p.device) for p in model.parameters()), "cpu")


@torch.no_grad()
def _failure(model: nn.Module, size: Size, device: str) -> str | None:
    try:
        model(probe(size, device))
    except Exception as error:  # networks refuse sizes with assertions, value errors and errors of their layers
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def count_macs(model: nn.Module, size: Size, device: str, channels: int = 3) -> int:
    """Multiply-accumulates of a model for one image of a size; what the counter does not know counts as none."""
    with _counting(model) as counter:
        model(probe(size, device, channels))
    return int(counter.get_total_flops()) // (2 * BATCH)


@contextlib.contextmanager
def _counting(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Counts the work done inside; the counter stumbles over a parameter that is handed to a module as its input."""
    learned = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in learned:
            p.requires_grad_(False)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        for p in learned:
            p.requires_grad_(True)


# --- the traced graph ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traced:
    """A graph module and the qualified name of each of its nodes."""

    module: fx.GraphModule
    names: dict[fx.Node, str]


class _Measure(fx.Interpreter):
    """Runs a graph and notes shape, work and receptive field at every node."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter = counter
        self.before = 0
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.macs: dict[fx.Node, int] = {}
        self.fields: dict[fx.Node, fields.Field] = {}

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


def _measure_graph(graph: Traced, size: Size, device: str) -> tuple[list[Cut], int, str]:
    failure = ""
    with _counting(graph.module) as counter:
        run = _Measure(graph.module, counter)
        try:
            run.run(probe(size, device))
        except Exception as error:
            # The classifier's end may refuse a size (a pooling window larger than its input); the maps before it stand.
            failure = (str(error).splitlines() or [type(error).__name__])[0]
    short = _short_names(graph)
    alone = separating(graph.module.graph)
    work = _Work(graph.module, run.macs)
    cuts = []
    for node, shape in run.shapes.items():
        seen = work.add(node)
        if node.op not in ("call_module", "call_function", "call_method") or node not in graph.names:
            continue
        layout = _layout(shape, size)
        if layout is None:
            continue
        channels, height, width = shape[1:] if layout == "NCHW" else (shape[3], shape[1], shape[2])
        field = run.fields[node] if layout == "NCHW" else None
        cuts.append(
            Cut(
                node=short[node],
                channels=channels,
                height=height,
                width=width,
                stride=(size[0] / height, size[1] / width),
                macs=seen[0],
                parameters=seen[1],
                receptive_field=_extent(field),
                offset=_centre(field),
                separates=node in alone,
                input_size=size,
                graph_node=graph.names[node],
                layout=layout,
            )
        )
    return cuts, sum(run.macs.values()), failure


def _extent(field: fields.Field) -> Size | None:
    return None if field is None else (field[0].high - field[0].low + 1, field[1].high - field[1].low + 1)


def _centre(field: fields.Field) -> tuple[float, float] | None:
    return None if field is None else ((field[0].low + field[0].high) / 2, (field[1].low + field[1].high) / 2)


class _Work:
    """Multiply-accumulates and parameters that a node needs, itself and everything before it."""

    def __init__(self, module: fx.GraphModule, macs: dict[fx.Node, int]) -> None:
        self.module = module
        self.macs = macs
        self.order = list(macs)
        self.index = {node: i for i, node in enumerate(self.order)}
        self.before: dict[fx.Node, int] = {}  # a set of nodes, as bits
        self.owned = [self._own_parameters(node) for node in self.order]

    def _own_parameters(self, node: fx.Node) -> dict[int, int]:
        if node.op == "call_module":
            return {id(p): p.numel() for p in self.module.get_submodule(str(node.target)).parameters()}
        if node.op == "get_attr":
            value: Any = self.module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return {id(value): value.numel()} if isinstance(value, nn.Parameter) else {}
        return {}

    def add(self, node: fx.Node) -> tuple[int, int]:
        bits = 0
        for earlier in self.order[len(self.before) : self.index[node] + 1]:
            own = 1 << self.index[earlier]
            for source in earlier.all_input_nodes:
                own |= self.before[source]
            self.before[earlier] = own
        bits = self.before[node]
        used = [i for i in range(self.index[node] + 1) if bits >> i & 1]
        owned: dict[int, int] = {}
        for i in used:
            owned.update(self.owned[i])
        return sum(self.macs[self.order[i]] for i in used), sum(owned.values())


def _layout(shape: tuple[int, ...], size: Size) -> Layout | None:
    """Where the axes of a tensor are those of the image at a smaller scale."""
    if len(shape) != 4 or shape[0] != BATCH or 0 in shape:
        return None
    if shape.count(1) >= 2 and min(size) >= POOLED_FROM:
        return None
    if _is_scaled(shape[2], shape[3], size):
        return "NCHW"
    return "NHWC" if _is_scaled(shape[1], shape[2], size) else None


def _is_scaled(height: int, width: int, size: Size) -> bool:
    if height > size[0] or width > size[1]:
        return height <= size[0] + 8 and width <= size[1] + 8 and (height - size[0]) == (width - size[1])
    return abs(math.log((size[0] / height) / (size[1] / width))) <= math.log(1 + 1.5 / min(height, width))


def _short_names(graph: Traced) -> dict[fx.Node, str]:
    """A module's own path for a module's node; for an operator, the widest block whose last node it is."""
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


# --- the network's own stages ----------------------------------------------------------------------------------------


@torch.no_grad()
def _stage_rule(model: nn.Module, own_size: Size, device: str) -> InputRule | None:
    """The rule under which the stages have the channels that they have at the network's own size.

    Some hybrids of convolutions and attention run at any size and, where it does not divide, shape tokens wrongly.
    """
    indices = range(len(stage_names(model)))
    wanted = [found.shape[1] for found in stages(model, probe(own_size, device), indices)]

    def runs(tried: Size) -> bool:
        try:
            return [found.shape[1] for found in stages(model, probe(tried, device), indices)] == wanted
        except Exception:  # networks refuse sizes with assertions, value errors and errors of their layers
            return False

    return find_rule(runs, own_size)


def _measure_stages(model: nn.Module, size: Size, device: str) -> list[Cut]:
    names = stage_names(model)
    totals: dict[str, int] = {}
    with _counting(model) as counter:
        hooks = [
            module.register_forward_hook(lambda *_, name=name: totals.__setitem__(name, counter.get_total_flops()))
            for name, module in model.named_modules()
            if name in names
        ]
        try:
            stages(model, probe(size, device), range(len(names)))
        finally:
            for hook in hooks:
                hook.remove()
    maps = stages(model, probe(size, device), range(len(names)))  # again, for autograd's own graph of parameters
    reach = _Leaves(model)
    cuts, macs = [], 0
    for name, found in zip(names, maps, strict=True):
        macs = max(totals.get(name, 0) // (2 * BATCH), macs)
        _, channels, height, width = found.shape
        cuts.append(
            Cut(
                node=name,
                channels=channels,
                height=height,
                width=width,
                stride=(size[0] / height, size[1] / width),
                macs=macs,
                parameters=sum(p.numel() for p in reach.of(found)),
                receptive_field=None,
                offset=None,
                separates=True,
                input_size=size,
                graph_node=name,
                kind="stages",
            )
        )
    return cuts


class _Leaves:
    """Parameters that a tensor was computed from, read from autograd's own graph."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {id(p): p for p in model.parameters()}
        self.seen: set[Any] = set()
        self.found: dict[int, nn.Parameter] = {}

    def of(self, tensor: Tensor) -> list[nn.Parameter]:
        """Those of ``tensor`` and of all tensors asked for before, which lie above it in a network."""
        todo = [tensor.grad_fn]
        while todo:
            step = todo.pop()
            if step is None or step in self.seen:
                continue
            self.seen.add(step)
            leaf = getattr(step, "variable", None)
            if leaf is not None and id(leaf) in self.parameters:
                self.found[id(leaf)] = leaf
            todo.extend(earlier for earlier, _ in step.next_functions)
        return list(self.found.values())


def used_parameters(model: nn.Module, maps: list[Tensor]) -> set[str]:
    """Names of the parameters that ``maps`` were computed from."""
    reach = _Leaves(model)
    for found in maps:
        reach.of(found)
    return {name for name, p in model.named_parameters() if id(p) in reach.found}


def without_values(model: nn.Module) -> nn.Module:
    """A copy on the meta device; no second set of weights comes to be."""
    memo: dict[int, Any] = {}
    for p in model.parameters():
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    for b in model.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    return copy.deepcopy(model, memo)
