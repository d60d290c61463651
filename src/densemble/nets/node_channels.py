"""Number of channels of a node, read from the layers of a traced network without running it."""

import operator

from torch import fx, nn

from densemble.nets.trunks import CutBackbone, GraphBackbone

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
_NORMALIZATIONS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d)
_ADDITIONS = (operator.add, operator.iadd)
_SAME_CHANNELS = (
    "torch.nn.modules.activation",
    "torch.nn.modules.dropout",
    "torch.nn.modules.pooling",
    "timm.layers.drop",
)
"""Modules whose layers keep the channels."""


def wrong_channels(backbone: CutBackbone, channels: tuple[int, ...]) -> str:
    """Describe the first node that has another number of channels, or is the image; empty if none is known to.

    Args:
        backbone: a truncated backbone. Nodes whose layers do not tell their channels are not checked.
        channels: expected channels of its nodes, in their order.
    """
    if not isinstance(backbone, GraphBackbone):
        return ""
    (output,) = (node for node in backbone.network.graph.nodes if node.op == "output")
    results = output.args[0]
    for name, expected in zip(backbone.nodes, channels, strict=True):
        node = results.get(name) if isinstance(results, dict) else None
        found = _channels(backbone.network, node) if isinstance(node, fx.Node) else None
        if found not in (None, expected):
            return (
                f"node '{name}' has {found} channels instead of {expected}" if found else f"node '{name}' is the image"
            )
    return ""


def _channels(network: fx.GraphModule, node: fx.Node) -> int | None:
    """Channels of a node's tensor: 0 for the image, ``None`` if they are not known."""
    while True:
        if node.op == "placeholder":
            return 0
        if node.op == "call_module":
            layer = network.get_submodule(str(node.target))
            if isinstance(layer, _CONVOLUTIONS):
                return layer.out_channels
            if isinstance(layer, _NORMALIZATIONS):
                return layer.num_features
            if not isinstance(layer, nn.Identity) and type(layer).__module__ not in _SAME_CHANNELS:
                return None
        elif node.target not in _ADDITIONS:
            return None
        if not node.args or not isinstance(node.args[0], fx.Node):
            return None
        node = node.args[0]
