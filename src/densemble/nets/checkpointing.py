"""Gradient checkpointing of a traced backbone (Chen et al. 2016): inner maps are computed again instead of kept.

The graph is run in segments that end where one tensor alone is alive; only those tensors are kept for the gradient.
"""

import math
from typing import Any

from torch import Tensor, fx
from torch.utils.checkpoint import checkpoint

from densemble.nets.in_place import overwrites


def separating(graph: fx.Graph, outputs_live: bool = True) -> set[fx.Node]:
    """Nodes after which nothing older is used: the places where exactly one tensor is alive.

    Args:
        graph: of a network.
        outputs_live: whether what the graph returns is alive until its end.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    alive_until, found = -1, set()
    for node, i in order.items():
        if node.op in ("get_attr", "output"):
            continue
        if alive_until <= i:
            found.add(node)
        users = [order[user] for user in node.users if outputs_live or user.op != "output"]
        alive_until = max([alive_until, *users])
    return found


class SegmentedRun:
    """Runs a graph that returns ``{name: tensor}`` segment by segment."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        nodes = list(module.graph.nodes)
        (self.output,) = (node for node in nodes if node.op == "output")
        self.wanted: dict[str, fx.Node] = dict(self.output.args[0])
        body = [node for node in nodes if node.op not in ("placeholder", "output")]
        self.placeholder = next(node for node in nodes if node.op == "placeholder")
        alone = separating(module.graph, outputs_live=False)
        # What a segment starts from is needed again for the gradient.
        ends = [node for node in body if node in alone and not any(overwrites(module, user) for user in node.users)]
        count = max(int(math.sqrt(len(ends))), 1)
        borders = {ends[i * len(ends) // count - 1] for i in range(1, count)} if ends else set()
        self.segments: list[list[fx.Node]] = [[]]
        for node in body:
            self.segments[-1].append(node)
            if node in borders:
                self.segments.append([])
        self.segments = [segment for segment in self.segments if segment]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """What the graph returns for images ``(B, C, H, W)``."""
        found: dict[fx.Node, Tensor] = {}
        start, border = self.placeholder, images
        for segment in self.segments:
            wanted = [node for node in segment if node in self.wanted.values()]
            border, *maps = checkpoint(self._run, segment, wanted, start, border, use_reentrant=False)
            found.update(zip(wanted, maps, strict=True))
            start = segment[-1]
        return {name: found[node] for name, node in self.wanted.items()}

    def _run(self, segment: list[fx.Node], wanted: list[fx.Node], start: fx.Node, border: Tensor) -> list[Tensor]:
        interpreter = fx.Interpreter(self.module, garbage_collect_values=False)
        values: dict[fx.Node, Any] = {start: border}
        interpreter.env = values
        for node in segment:
            values[node] = interpreter.run_node(node)
        return [values[segment[-1]], *(values[node] for node in wanted)]
