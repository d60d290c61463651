"""Detect in-place operations in a graph and protect returned maps from them.

``x += y`` is not an in-place operation here: tracing turns it into ``x = x + y``.
"""

import torch
from torch import fx, nn


def overwrites(module: nn.Module, node: fx.Node) -> bool:
    """Whether a node changes its input in place."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return bool(node.kwargs.get("inplace", False))


def copy_overwritten_outputs(module: nn.Module, graph: fx.Graph) -> None:
    """Return copies of the outputs that a later operation changes in place; all other nodes use the changed tensor."""
    for output in [node for node in graph.nodes if node.op == "output"]:
        for returned in output.all_input_nodes:
            if any(overwrites(module, user) for user in returned.users):
                with graph.inserting_after(returned):
                    output.replace_input_with(returned, graph.call_function(torch.clone, (returned,)))
