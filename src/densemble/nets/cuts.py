"""Cuts: where a backbone may end, and which earlier maps go with a cut."""

from collections.abc import Sequence
from functools import lru_cache

from torch import nn

from densemble.errors import CutError, UsageError
from densemble.nets import backbones
from densemble.nets.choose import no_map
from densemble.nets.cut import Cut, CutList
from densemble.nets.measure import Measured, measure
from densemble.nets.measure_graph import Traced
from densemble.shapes import Size

REFERENCE_SIZE: Size = (240, 320)
SINGLE_SIZE_LEVELS = 4
SAME_LEVEL = 1.25


def _measure(model: nn.Module, size: Size, own_size: Size | None) -> Measured:
    graph: Traced | UsageError
    try:
        graph = Traced(*backbones.trace(model))
    except UsageError as error:
        graph = error
    return measure(model, graph, size, own_size)


@lru_cache(maxsize=64)
def _measure_named(name: str, size: Size) -> Measured:
    own_size = backbones.own_size(name)
    try:
        return _measure(backbones.build_classifier(name, "meta"), size, own_size)
    except (RuntimeError, NotImplementedError):
        # A few networks look at values while they run, of which there are none on the meta device.
        return _measure(backbones.build_classifier(name, "cpu"), size, own_size)


def measured(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> Measured:
    """Everything measured on a backbone: its cuts, the sizes it takes, its whole work and parameters.

    Raises:
        UsageError: unknown name, or a network that cannot be traced or run.
    """
    return _measure_named(backbone, size) if isinstance(backbone, str) else _measure(backbone.eval(), size, None)


def all_nodes(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> list[Cut]:
    """Every node with a feature map, those inside blocks included."""
    return list(measured(backbone, size).cuts)


def cuts(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> CutList:
    """Places where a backbone can end, in the order of the network, measured by running it on a probe image.

    A place is listed when nothing computed before it is needed after it, so not inside a residual or dense block.

    Args:
        backbone: a name (see :func:`backbones`) or a classifier that takes ``(B, 3, H, W)``.
        size: (H, W) of the input in pixels; networks that take only some sizes are measured at the nearest.

    Raises:
        UsageError: unknown name, or a network that cannot be traced or run at this size.
        CutError: no tensor of the network is a map.
    """
    found = CutList(cut for cut in all_nodes(backbone, size) if cut.separates)
    if not found:
        raise CutError(no_map(backbone if isinstance(backbone, str) else type(backbone).__name__))
    return found


def levels(found: Sequence[Cut], cut: Cut, finest: Size) -> list[Cut]:
    """The cut and the maps before it that a head with skips can use, deepest first.

    Of each size the deepest map, down from ``cut`` to the first that reaches ``finest``. A network of one size
    (a vision transformer) gives maps from evenly spaced depths instead.

    Args:
        found: what :func:`all_nodes` measured.
        cut: where the backbone ends.
        finest: (H, W) beyond which more detail is of no use.
    """
    before = [c for c in found[: _position(found, cut)] if c.separates and c.size != c.input_size]
    by_size = {c.size: c for c in before if c.height >= cut.height and c.width >= cut.width}
    larger = sorted((c for c in by_size.values() if c.size != cut.size), key=lambda c: c.height * c.width)
    if not larger:
        same = [c for c in before if c.size == cut.size]
        count = min(SINGLE_SIZE_LEVELS - 1, len(same))
        return [cut, *(same[len(same) * i // count] for i in reversed(range(count)))]
    kept = [cut]
    for level in larger:
        if not _is_larger(finest, kept[-1].size):
            break
        if _is_larger(level.size, kept[-1].size):
            kept.append(level)
    return kept


def _is_larger(size: Size, than: Size) -> bool:
    """Sizes a pixel or two apart, as unpadded convolutions leave them, count as equal."""
    return size[0] > SAME_LEVEL * than[0] or size[1] > SAME_LEVEL * than[1]


def _position(found: Sequence[Cut], cut: Cut) -> int:
    return next(i for i, c in enumerate(found) if c.graph_node == cut.graph_node)
