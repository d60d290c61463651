"""Truncate a classifier to a backbone that ends at its cut and has no unused modules."""

import copy
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from densemble.nets import backbones
from densemble.nets.axis_order import Layout
from densemble.nets.counting import probe
from densemble.nets.cut import Kind
from densemble.nets.leaves import used_parameters, without_values
from densemble.nets.stages import named_outputs, stages
from densemble.nets.trunks import (
    CutBackbone,
    GraphBackbone,
    OutputBackbone,
    StageBackbone,
    called_modules,
    drop_unused,
)
from densemble.shapes import Size

ReadMaps = Callable[[nn.Module, Tensor, Sequence[str]], list[Tensor]]


def truncate(
    classifier: nn.Module,
    kind: Kind,
    nodes: Sequence[str],
    layouts: Sequence[Layout],
    size: Size,
    in_channels: int = 3,
) -> CutBackbone:
    """Truncate a classifier after ``nodes``.

    Args:
        classifier: its modules become part of the backbone; do not use it afterwards.
        kind: where the nodes are, see :class:`Cut`.
        nodes: deepest first.
        layouts: layouts of the nodes, in the same order.
        size: an (H, W) that the classifier accepts.
        in_channels: number of channels that the classifier accepts.
    """
    if kind == "graph":
        return GraphBackbone(backbones.truncate(classifier, nodes), nodes, layouts)
    read = stages if kind == "stages" else named_outputs
    unique_nodes = list(dict.fromkeys(nodes))
    try:
        twin, images = without_values(classifier), probe(size, "meta", in_channels)
        used, called = _needed(twin, read, unique_nodes, images)
    except (RuntimeError, NotImplementedError):  # its forward reads values, which is impossible on the meta device
        twin, images = copy.deepcopy(classifier), probe(size, "cpu", in_channels)
        used, called = _needed(twin, read, unique_nodes, images)
    if kind == "stages":
        drop_unused(classifier, used, called)
        return StageBackbone(classifier, nodes, layouts)
    try:
        drop_unused(twin, used, called)
        read(twin, images, unique_nodes)
    except Exception:  # the code reads attributes of a module that does not run: keep all modules
        called = {name for name, _ in classifier.named_modules()}
    drop_unused(classifier, used, called)
    return OutputBackbone(classifier, nodes, layouts)


def _needed(twin: nn.Module, read: ReadMaps, names: Sequence[str], images: Tensor) -> tuple[set[str], set[str]]:
    """(names of the parameters that the maps depend on, names of the modules that run)."""
    twin.requires_grad_(True)
    maps: list[Tensor] = []
    called = called_modules(twin, lambda: maps.extend(read(twin, images, names)))
    return used_parameters(twin, maps), called
