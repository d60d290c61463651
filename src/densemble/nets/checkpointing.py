"""Gradient checkpointing of a traced backbone (Chen et al. 2016): recompute inner maps instead of storing them.

The graph runs in segments that end where exactly one tensor is alive; only these tensors are stored for the gradient.
"""

import math
from typing import Any

from torch import Tensor, fx
from torch.utils.checkpoint import checkpoint

from densemble.nets.in_place import overwrites


def separating(graph: fx.Graph, outputs_live: bool = True) -> set[fx.Node]:
    """Nodes after which exactly one tensor is alive, so that no earlier tensor is used any more.

    Args:
        graph: graph of a network.
        outputs_live: whether outputs of the graph count as alive until its end.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    alive_until, result = -1, set()
    for node, i in order.items():
        if node.op in ("get_attr", "output"):
            continue
        if alive_until <= i:
            result.add(node)
        users = [order[user] for user in node.users if outputs_live or user.op != "output"]
        alive_until = max([alive_until, *users])
    return result


class SegmentedRun:
    """Run a graph that returns ``{name: tensor}`` in checkpointed segments."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        nodes = list(module.graph.nodes)
        (output,) = (node for node in nodes if node.op == "output")
        self.returned: dict[str, fx.Node] = dict(output.args[0])
        body = [node for node in nodes if node.op not in ("placeholder", "output")]
        self.placeholder = next(node for node in nodes if node.op == "placeholder")
        separators = separating(module.graph, outputs_live=False)
        # The gradient needs the input of each segment again, so it must not be overwritten.
        ends = [node for node in body if node in separators and not any(overwrites(module, u) for u in node.users)]
        count = max(int(math.sqrt(len(ends))), 1)
        borders = {ends[i * len(ends) // count - 1] for i in range(1, count)} if ends else set()
        self.segments: list[list[fx.Node]] = [[]]
        for node in body:
            self.segments[-1].append(node)
            if node in borders:
                self.segments.append([])
        self.segments = [segment for segment in self.segments if segment]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Run the graph on images ``(B, C, H, W)``."""
        maps: dict[fx.Node, Tensor] = {}
        start, border = self.placeholder, images
        for segment in self.segments:
            outputs = [node for node in segment if node in self.returned.values()]
            border, *values = checkpoint(self._run, segment, outputs, start, border, use_reentrant=False)
            maps.update(zip(outputs, values, strict=True))
            start = segment[-1]
        return {name: maps[node] for name, node in self.returned.items()}

    def _run(self, segment: list[fx.Node], outputs: list[fx.Node], start: fx.Node, border: Tensor) -> list[Tensor]:
        interpreter = fx.Interpreter(self.module, garbage_collect_values=False)
        values: dict[fx.Node, Any] = {start: border}
        interpreter.env = values
        for node in segment:
            values[node] = interpreter.run_node(node)
        return [values[segment[-1]], *(values[node] for node in outputs)]
