"""Cuts: where a backbone may end, measured by running it, and which place is the automatic choice."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, SupportsIndex, overload

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from densemble.errors import CutError, UsageError
from densemble.nets import backbones
from densemble.shapes import Size, format_size

REFERENCE_SIZE: Size = (240, 320)


@dataclass(frozen=True)
class Cut:
    """A place where a backbone can end and what was measured there.

    Attributes:
        node: qualified name, as in torchvision's feature extraction (``features.4``, ``layer2``).
        channels: C of the feature map.
        height: rows of the feature map for an input of ``input_size``.
        width: columns.
        stride: input pixels per feature pixel, (vertical, horizontal), measured as the ratio of sizes.
        macs: multiply-accumulates from the image up to here, for one image.
        separates: nothing that was computed before this node is needed after it; inside a residual or dense
            block that is false, and a network cut there loses a branch.
        input_size: (H, W) it was measured at.
    """

    node: str
    channels: int
    height: int
    width: int
    stride: tuple[float, float]
    macs: int
    separates: bool
    input_size: Size
    graph_node: str

    @property
    def size(self) -> Size:
        """(height, width) of the feature map."""
        return self.height, self.width

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        values.pop("graph_node")
        return values


class CutList(list[Cut]):
    """Cuts in the order of the network; a table in a terminal and in a notebook."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Cut: ...
    @overload
    def __getitem__(self, index: slice) -> "CutList": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Cut | CutList":
        found = super().__getitem__(index)
        return CutList(found) if isinstance(found, list) else found

    def __str__(self) -> str:
        rows = [("node", "channels", "H x W", "stride", "MMACs")]
        rows += [
            (
                c.node,
                str(c.channels),
                format_size(c.size),
                f"{c.stride[0]:.3g}x{c.stride[1]:.3g}",
                f"{c.macs / 1e6:,.0f}",
            )
            for c in self
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("node", "channels", "H x W", "stride", "MMACs"))
        body = "".join(
            f"<tr><td><code>{c.node}</code></td><td>{c.channels}</td><td>{format_size(c.size)}</td>"
            f"<td>{c.stride[0]:.3g}x{c.stride[1]:.3g}</td><td>{c.macs / 1e6:,.0f}</td></tr>"
            for c in self
        )
        return f"<table><tr>{head}</tr>{body}</table>"


class _Measure(fx.Interpreter):
    """Runs a graph and notes shape and work at every node."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter = counter
        self.seen: list[tuple[fx.Node, tuple[int, ...] | None, int]] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        shape = tuple(result.shape) if isinstance(result, Tensor) else None
        self.seen.append((n, shape, self.counter.get_total_flops() // 2))
        return result


def _short_names(graph: fx.Graph, names: dict[fx.Node, str], modules: set[str]) -> dict[fx.Node, str]:
    """A module's own path for a module's node; for an operator, the widest block whose last node it is."""
    last: dict[str, fx.Node] = {}
    for node in graph.nodes:
        parts = names.get(node, "").split(".")
        for depth in range(1, len(parts) + 1):
            last[".".join(parts[:depth])] = node
    short = {}
    for node in graph.nodes:
        name = names.get(node, "")
        parts = name.split(".")
        prefixes = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        short[node] = name if name in modules else next((p for p in prefixes if last[p] is node), name)
    return short


def _separating(graph: fx.Graph) -> set[fx.Node]:
    """Nodes after which nothing older is used: the places where exactly one tensor is alive."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    alive_until, found = -1, set()
    for node, i in order.items():
        if node.op in ("get_attr", "output"):
            continue
        if alive_until <= i:
            found.add(node)
        alive_until = max([alive_until, *(order[user] for user in node.users)])
    return found


def _measure(model: nn.Module, size: Size, device: str) -> list[Cut]:
    module, names = backbones.trace(model)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run = _Measure(module, counter)
            run.run(torch.zeros(1, 3, *size, device=device))
    except (RuntimeError, ValueError) as error:
        if not run.seen or not any(shape is not None and len(shape) == 4 for _, shape, _ in run.seen[1:]):
            raise UsageError(
                f"{type(model).__name__} does not run on a 3-channel image of {format_size(size)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        # The classifier's end may refuse a size (a pooling window larger than its input); the maps before it stand.
    short = _short_names(module.graph, names, {name for name, _ in module.named_modules()})
    separating = _separating(module.graph)
    return [
        Cut(
            short[node],
            shape[1],
            shape[2],
            shape[3],
            (size[0] / shape[2], size[1] / shape[3]),
            macs,
            node in separating,
            size,
            names[node],
        )
        for node, shape, macs in run.seen
        if node.op in ("call_module", "call_function", "call_method")
        and shape is not None
        and len(shape) == 4
        and 0 not in shape
        and node in names
    ]


@lru_cache(maxsize=64)
def _measure_named(name: str, size: Size) -> tuple[Cut, ...]:
    return tuple(_measure(backbones.build_classifier(name, "meta"), size, "meta"))


def all_nodes(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> list[Cut]:
    """Every node with a feature map, those inside blocks included."""
    if isinstance(backbone, str):
        return list(_measure_named(backbone, size))
    device = next((str(p.device) for p in backbone.parameters()), "cpu")
    return _measure(backbone, size, device)


def cuts(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> CutList:
    """Places where a backbone can end, in the order of the network, measured by running it on a probe image.

    A place is listed when nothing computed before it is needed after it, so not inside a residual or dense block.

    Args:
        backbone: a name (see :func:`backbones`) or a classifier that takes ``(1, 3, H, W)``.
        size: (H, W) of the input in pixels.

    Raises:
        UsageError: unknown name, or a network that cannot be traced or run at this size.
        CutError: no tensor of the network is a map, as in a vision transformer.
    """
    found = CutList(cut for cut in all_nodes(backbone, size) if cut.separates)
    if not found:
        raise CutError(_no_map(backbone if isinstance(backbone, str) else type(backbone).__name__))
    return found


def _no_map(backbone: str) -> str:
    return (
        f"{backbone} has no feature map that alone holds all that was computed before: it cannot be cut; take another"
    )


def choose(found: Sequence[Cut], node: str, min_size: Size, backbone: str, wanted: str) -> Cut:
    """The cut named ``node``; for ``"auto"`` the deepest one whose map is at least ``min_size``.

    Args:
        found: what :func:`all_nodes` measured.
        node: qualified name, or ``"auto"``.
        min_size: smallest permitted (H, W) of the feature map.
        backbone: its name, for the messages.
        wanted: what ``min_size`` comes from, for the messages (``half of the 48x64 output``).

    Raises:
        CutError: the node does not exist or its map is too small; names cuts that fit.
    """
    if not any(c.separates for c in found):
        raise CutError(_no_map(backbone))
    fitting = [c for c in found if c.separates and c.height >= min_size[0] and c.width >= min_size[1]]
    if not fitting:
        raise CutError(
            f"no feature map of {backbone} at {_input(found)} keeps {format_size(min_size)} ({wanted}); "
            "take a larger input, a smaller output or a smaller min_size"
        )
    deepest = fitting[-1]
    if node == "auto":
        return deepest
    offered = ", ".join(f"'{c.node}' ({c.channels}x{format_size(c.size)})" for c in _spread(fitting))
    named = [c for c in found if node in (c.node, c.graph_node) or c.graph_node.startswith(f"{node}.")]
    if not named:
        raise CutError(f"{backbone} has no node '{node}'; cuts that fit: {offered}")
    cut = named[-1]
    if cut.height < min_size[0] or cut.width < min_size[1]:
        raise CutError(
            f"cut '{node}' of {backbone} is {format_size(cut.size)}, smaller than {wanted}; the deepest cut that keeps "
            f"{format_size(min_size)} is '{deepest.node}' ({deepest.channels} channels); cuts that fit: {offered}; "
            "or permit it with a smaller min_size"
        )
    return cut


def _input(found: Sequence[Cut]) -> str:
    return format_size(found[0].input_size) if found else "this size"


def _spread(fitting: list[Cut]) -> list[Cut]:
    """The deepest cut of each size, at most four: enough to choose from."""
    by_size = {c.size: c for c in fitting}
    return list(by_size.values())[-4:]
