"""Truncation: a classifier becomes a backbone that ends at its cut and holds nothing that the cut does not need."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from densemble.nets import backbones
from densemble.nets.counting import probe
from densemble.nets.cut import Kind, Layout
from densemble.nets.leaves import used_parameters, without_values
from densemble.nets.trunks import (
    CutBackbone,
    GraphBackbone,
    StageBackbone,
    called_modules,
    drop_unused,
    stage_names,
    stages,
)
from densemble.shapes import Size


def truncate(
    classifier: nn.Module, kind: Kind, nodes: Sequence[str], layouts: Sequence[Layout], size: Size
) -> CutBackbone:
    """The classifier up to ``nodes``.

    Args:
        classifier: taken apart; it cannot be used by itself afterwards.
        kind: whether the nodes are the graph's or the network's own stages.
        nodes: deepest first.
        layouts: of the nodes, in their order.
        size: (H, W) that the classifier runs at.
    """
    if kind == "graph":
        return GraphBackbone(backbones.truncate(classifier, nodes), nodes, layouts)
    names = stage_names(classifier)
    indices = sorted({names.index(node) for node in nodes})
    try:
        used, called = _needed(without_values(classifier), indices, probe(size, "meta"))
    except RuntimeError:  # it looks at values while it runs
        used, called = _needed(copy.deepcopy(classifier), indices, probe(size, "cpu"))
    drop_unused(classifier, used, called)
    return StageBackbone(classifier, nodes)


def _needed(twin: nn.Module, indices: Sequence[int], images: Tensor) -> tuple[set[str], set[str]]:
    """Names of the parameters that the stages depend on, and of the modules that run for them."""
    twin.requires_grad_(True)
    maps: list[Tensor] = []
    called = called_modules(twin, lambda: maps.extend(stages(twin, images, indices)))
    return used_parameters(twin, maps), called
