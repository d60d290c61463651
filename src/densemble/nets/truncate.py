"""Truncation: a whole classifier becomes a backbone that ends at its cut and holds nothing that the cut does not need."""

from collections.abc import Sequence

from torch import Tensor, nn

from densemble.nets import backbones
from densemble.nets.cut import Kind, Layout
from densemble.nets.measure import probe, used_parameters, without_values
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


def truncate(classifier: nn.Module, kind: Kind, nodes: Sequence[str], layouts: Sequence[Layout], size: Size) -> CutBackbone:
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
    twin = without_values(classifier).requires_grad_(True)
    maps: list[Tensor] = []
    called = called_modules(twin, lambda: maps.extend(stages(twin, probe(size, "meta"), indices)))
    drop_unused(classifier, used_parameters(twin, maps), called)
    return StageBackbone(classifier, nodes)
