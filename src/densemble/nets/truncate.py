"""Truncation: a classifier becomes a backbone that ends at its cut and holds nothing that the cut does not need."""

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
    """The classifier up to ``nodes``.

    Args:
        classifier: taken apart; it cannot be used by itself afterwards.
        kind: where the nodes are looked for.
        nodes: deepest first.
        layouts: of the nodes, in their order.
        size: (H, W) that the classifier runs at.
        in_channels: of the images that it takes.
    """
    if kind == "graph":
        return GraphBackbone(backbones.truncate(classifier, nodes), nodes, layouts)
    read = stages if kind == "stages" else named_outputs
    wanted = list(dict.fromkeys(nodes))
    try:
        twin, images = without_values(classifier), probe(size, "meta", in_channels)
        used, called = _needed(twin, read, wanted, images)
    except (RuntimeError, NotImplementedError):  # it looks at values while it runs
        twin, images = copy.deepcopy(classifier), probe(size, "cpu", in_channels)
        used, called = _needed(twin, read, wanted, images)
    if kind == "stages":
        drop_unused(classifier, used, called)
        return StageBackbone(classifier, nodes)
    try:
        drop_unused(twin, used, called)
        read(twin, images, wanted)
    except Exception:  # what runs looks into a module that does not: all of them stay
        called = {name for name, _ in classifier.named_modules()}
    drop_unused(classifier, used, called)
    return OutputBackbone(classifier, nodes, layouts)


def _needed(twin: nn.Module, read: ReadMaps, names: Sequence[str], images: Tensor) -> tuple[set[str], set[str]]:
    """Names of the parameters that the maps depend on, and of the modules that run for them."""
    twin.requires_grad_(True)
    maps: list[Tensor] = []
    called = called_modules(twin, lambda: maps.extend(read(twin, images, names)))
    return used_parameters(twin, maps), called
