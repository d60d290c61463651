"""Cuts: where a backbone may end, and which earlier maps go with a cut."""

from collections.abc import Sequence
from functools import lru_cache

from torch import nn

from densemble.errors import CutError, UsageError
from densemble.nets import backbones
from densemble.nets.automatic_cut import deepest_of, depth, no_map
from densemble.nets.cut import Cut, CutList
from densemble.nets.leaves import with_the_same_values
from densemble.nets.measure_cuts import Measured, measure
from densemble.nets.measure_graph import Traced
from densemble.nets.network_arguments import unwrapped
from densemble.nets.sizes import declared_sizes
from densemble.shapes import Size

REFERENCE_SIZE: Size = (240, 320)
SINGLE_SIZE_LEVELS = 4
SAME_LEVEL = 1.25


def _measure(model: nn.Module, size: Size, own_sizes: Sequence[Size]) -> Measured:
    return measure(model, _traced(model), size, own_sizes)


def _traced(model: nn.Module) -> "Traced | UsageError":
    try:
        return Traced(*backbones.trace(model))
    except UsageError as error:
        return error


def _measure_own(model: nn.Module, size: Size, in_channels: int) -> Measured:
    """A network of the user's: of any size if possible, else of one that it says of itself, or of a common one."""
    # Of a copy, for hooks and forwards that keep what they see would keep the tracer's.
    graph = _traced(with_the_same_values(model))
    try:
        return measure(model, graph, size, (), in_channels)
    except UsageError:
        return measure(model, graph, size, declared_sizes(model), in_channels)


@lru_cache(maxsize=64)
def _measure_named(name: str, size: Size, in_channels: int) -> Measured:
    def measure_on(device: str) -> Measured:
        model = backbones.build_classifier(name, device)
        if backbones.is_user_function(name):
            return _measure_own(model, size, in_channels)
        return _measure(model, size, [backbones.own_size(name)])

    try:
        return measure_on("meta")
    except (RuntimeError, NotImplementedError):
        # A few networks look at values while they run, of which there are none on the meta device.
        return measure_on("cpu")


def measured(backbone: str | nn.Module, size: Size = REFERENCE_SIZE, in_channels: int = 3) -> Measured:
    """Everything measured on a backbone: its cuts, the sizes and channels it takes, its whole work and parameters.

    Args:
        backbone: a name or a network.
        size: (H, W) of the input.
        in_channels: of the images it is wanted for; a network of the user's own may take others than RGB.

    Raises:
        UsageError: unknown name, or a network that cannot be traced or run.
    """
    if isinstance(backbone, str):
        return _measure_named(backbone, size, in_channels if backbones.is_user_function(backbone) else 3)
    return _measure_own(unwrapped(backbone).eval(), size, in_channels)


def all_nodes(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> list[Cut]:
    """Every node with a feature map, those inside blocks included."""
    return list(measured(backbone, size).cuts)


def cuts(backbone: str | nn.Module, size: Size = REFERENCE_SIZE) -> CutList:
    """Places where a backbone can end, in the order of the network, measured by running it on a probe image.

    A place is listed when nothing computed before it is needed after it, so not inside a residual or dense block; or
    when the network returns its map in a list, tuple, dictionary or dataclass.

    Args:
        backbone: a name (see :func:`backbones`) or a network that takes ``(B, C, H, W)``.
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
    (a vision transformer) gives maps from evenly spaced depths instead. Of a network that returns its maps in a list,
    only those are taken, up to the deepest at least.

    Args:
        found: what :func:`all_nodes` measured.
        cut: where the backbone ends.
        finest: (H, W) beyond which more detail is of no use.
    """
    if cut.listed:
        return _listed_levels([c for c in found if c.listed], cut, finest)
    before = [c for c in found[: _position(found, cut)] if c.separates and c.size != c.input_size]
    by_size = {c.size: c for c in before if c.height >= cut.height and c.width >= cut.width}
    larger = sorted((c for c in by_size.values() if c.size != cut.size), key=lambda c: c.height * c.width)
    if not larger:
        return _evenly_spaced([c for c in before if c.size == cut.size], cut)
    kept = [cut]
    for level in larger:
        if not _is_larger(finest, kept[-1].size):
            break
        if _is_larger(level.size, kept[-1].size):
            kept.append(level)
    return kept


def _listed_levels(listed: Sequence[Cut], cut: Cut, finest: Size) -> list[Cut]:
    others = [c for c in listed if c != cut and c.height >= cut.height and c.width >= cut.width]
    larger = {c.size: c for c in sorted(others, key=depth) if c.size != cut.size}
    if not larger:
        return _evenly_spaced(others, cut)
    deepest = deepest_of([cut, *larger.values()])
    kept = [cut]
    for level in sorted(larger.values(), key=lambda c: c.height * c.width):
        wanted = _is_larger(finest, kept[-1].size) and _is_larger(level.size, kept[-1].size)
        if level is deepest or (wanted and level.size != level.input_size):
            kept.append(level)
    return kept


def _evenly_spaced(same: Sequence[Cut], cut: Cut) -> list[Cut]:
    count = min(SINGLE_SIZE_LEVELS - 1, len(same))
    return [cut, *(same[len(same) * i // count] for i in reversed(range(count)))]


def _is_larger(size: Size, than: Size) -> bool:
    """Sizes a pixel or two apart, as unpadded convolutions leave them, count as equal."""
    return size[0] > SAME_LEVEL * than[0] or size[1] > SAME_LEVEL * than[1]


def _position(found: Sequence[Cut], cut: Cut) -> int:
    return next(i for i, c in enumerate(found) if c.graph_node == cut.graph_node)
