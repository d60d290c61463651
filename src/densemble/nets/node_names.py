"""Short names of nodes: the module that ends with a node, in place of the last operation inside it."""

from collections.abc import Sequence

from torch import nn

from densemble.nets import backbones


def short_names(network: nn.Module, nodes: Sequence[str]) -> list[str]:
    """Return the shortest name of each node that means the same node in both modes: ``layer3.35.relu_2`` -> ``layer3``.

    Names of modules stay. No name is ``features``, which is the whole network before the classifier.

    Args:
        network: the whole network, in any mode; it is in eval mode afterwards if a name is shortened.
        nodes: qualified names of nodes.
    """
    modules = dict(network.named_modules())
    if all(node in modules for node in nodes):
        return list(nodes)
    modes = [list(backbones.trace(network, training)[1].values()) for training in (True, False)]

    def last(names: list[str], prefix: str) -> str:
        return [name for name in names if f"{name}.".startswith(f"{prefix}.")][-1]

    def shortest(node: str) -> str:
        parts = node.split(".")
        prefixes = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        return next(p for p in prefixes if p != "features" and all(last(n, p) == last(n, node) for n in modes))

    return [node if node in modules else shortest(node) for node in nodes]
