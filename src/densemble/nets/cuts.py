"""Cuts of a backbone, and the earlier feature maps that a multi-level head uses with a cut."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from torch import nn

from densemble.errors import CutError, UsageError
from densemble.nets import backbones
from densemble.nets.automatic_cut import deepest_of, no_map
from densemble.nets.cut import Cut, CutList
from densemble.nets.leaves import with_the_same_values
from densemble.nets.measure_cuts import Measured, measure
from densemble.nets.measure_graph import Traced
from densemble.nets.network_arguments import unwrapped
from densemble.nets.sizes import declared_sizes
from densemble.shapes import Size
from densemble.user_code import is_user_function

REFERENCE_SIZE: Size = (240, 320)
SINGLE_SIZE_LEVELS = 4
SAME_LEVEL = 1.25  # sizes within this ratio count as equal: unpadded convolutions shift them by a pixel or two


def _traced(model: nn.Module) -> "Traced | UsageError":
    try:
        return Traced(*backbones.trace(model))
    except UsageError as error:
        return error


def _measure_user_network(model: nn.Module, size: Size, in_channels: int) -> Measured:
    """Measure a network of the user: at any size if possible, else at a size that it declares or a common one."""
    # Trace a copy: hooks and forwards that store what they get would store the proxies of the tracer.
    graph = _traced(with_the_same_values(model))
    try:
        return measure(model, graph, size, (), in_channels)
    except UsageError:
        return measure(model, graph, size, declared_sizes(model), in_channels)


@lru_cache(maxsize=64)
def _measure_named(name: str, size: Size, in_channels: int) -> Measured:
    def measure_on(device: str) -> Measured:
        model = backbones.build_classifier(name, device)
        if is_user_function(name):
            return _measure_user_network(model, size, in_channels)
        return measure(model, _traced(model), size, [backbones.pretrained_size(name)])

    try:
        return measure_on("meta")
    except (RuntimeError, NotImplementedError):
        # A few networks read values in their forward, which is impossible on the meta device.
        return measure_on("cpu")


def measured(backbone: str | nn.Module, size: Size = REFERENCE_SIZE, in_channels: int = 3) -> Measured:
    """Measure a backbone: its cuts, accepted sizes and channels, multiply-accumulates and parameters.

    Args:
        backbone: a name or a network.
        size: (H, W) of the input.
        in_channels: number of channels of the images; a network of the user may accept other images than RGB.

    Raises:
        UsageError: the name is unknown, or the network cannot be traced or run.
    """
    if isinstance(backbone, str):
        return _measure_named(backbone, size, in_channels if is_user_function(backbone) else 3)
    return _measure_user_network(unwrapped(backbone).eval(), size, in_channels)


def all_nodes(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> list[Cut]:
    """Measurements of every node with a feature map, including nodes inside blocks."""
    return list(measured(backbone, size).cuts)


def cuts(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> CutList:
    """Nodes at which a backbone can be truncated, in network order, measured with a probe image.

    The list has each node after which no earlier value is needed, so no node inside a residual or dense block, and
    each feature map that the network returns in a list, tuple, dictionary or dataclass.

    Args:
        backbone: a name (see :func:`backbones`) or a network that takes ``(B, C, H, W)``.
        size: (H, W) of the input in pixels; a network that accepts only some sizes is measured at the nearest.

    Raises:
        UsageError: the name is unknown, or the network cannot be traced or run at this size.
        CutError: the network has no node to cut at.
    """
    separating_cuts = CutList(cut for cut in all_nodes(backbone, size) if cut.separates)
    if not separating_cuts:
        raise CutError(no_map(backbone if isinstance(backbone, str) else type(backbone).__name__))
    return separating_cuts


def levels(measurements: Sequence[Cut], cut: Cut, finest: Size) -> list[Cut]:
    """The cut and the earlier maps for a multi-level head, deepest first.

    The levels are the deepest map of each size, from ``cut`` to the first map that reaches ``finest``. A network with
    a single map size (a vision transformer) gives maps from evenly spaced depths instead. A network that returns its
    maps in a list gives only these maps, at least up to the deepest one.

    Args:
        measurements: result of :func:`all_nodes`.
        cut: last node of the backbone.
        finest: (H, W) of the finest useful map.
    """
    if cut.listed:
        return _listed_levels([c for c in measurements if c.listed], cut, finest)
    position = next(i for i, c in enumerate(measurements) if c.graph_node == cut.graph_node)
    earlier = [c for c in measurements[:position] if c.separates and c.size != c.input_size]
    larger = _larger_maps(earlier, cut)
    if not larger:
        return _evenly_spaced([c for c in earlier if c.size == cut.size], cut)
    selected = [cut]
    for level in sorted(larger, key=_area):
        if not _is_larger(finest, selected[-1].size):
            break
        if _is_larger(level.size, selected[-1].size):
            selected.append(level)
    return selected


def _listed_levels(listed: Sequence[Cut], cut: Cut, finest: Size) -> list[Cut]:
    others = [c for c in listed if c != cut and c.height >= cut.height and c.width >= cut.width]
    larger = _larger_maps(sorted(others, key=lambda c: c.parameters), cut)
    if not larger:
        return _evenly_spaced(others, cut)
    deepest = deepest_of([cut, *larger])
    selected = [cut]
    for level in sorted(larger, key=_area):
        useful = _is_larger(finest, selected[-1].size) and _is_larger(level.size, selected[-1].size)
        if level is deepest or (useful and level.size != level.input_size):
            selected.append(level)
    return selected


def _larger_maps(cuts_by_depth: Iterable[Cut], cut: Cut) -> list[Cut]:
    """The last cut of each map size larger than that of ``cut``."""
    candidates = (c for c in cuts_by_depth if c.height >= cut.height and c.width >= cut.width and c.size != cut.size)
    return list({c.size: c for c in candidates}.values())


def _area(cut: Cut) -> int:
    return cut.height * cut.width


def _evenly_spaced(same_size: Sequence[Cut], cut: Cut) -> list[Cut]:
    count = min(SINGLE_SIZE_LEVELS - 1, len(same_size))
    return [cut, *(same_size[len(same_size) * i // count] for i in reversed(range(count)))]


def _is_larger(size: Size, than: Size) -> bool:
    return size[0] > SAME_LEVEL * than[0] or size[1] > SAME_LEVEL * than[1]
