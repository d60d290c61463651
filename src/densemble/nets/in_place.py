"""Operations that work in place: where they are, and how a map is kept from them.

``x += y`` is none of them: tracing turns it into ``x = x + y``.
"""

import torch
from torch import fx, nn


def overwrites(module: nn.Module, node: fx.Node) -> bool:
    """Whether a node changes its input."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return bool(node.kwargs.get("inplace", False))


def copy_overwritten_outputs(module: nn.Module, graph: fx.Graph) -> None:
    """Makes a graph return copies of those outputs that an operation changes afterwards; all else sees the change."""
    for output in [node for node in graph.nodes if node.op == "output"]:
        for kept in output.all_input_nodes:
            if any(overwrites(module, user) for user in kept.users):
                with graph.inserting_after(kept):
                    output.replace_input_with(kept, graph.call_function(torch.clone, (kept,)))
