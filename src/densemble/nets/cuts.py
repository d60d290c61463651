"""Cuts: where a backbone may end, which place is the automatic choice, which earlier maps go with it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from torch import nn

from densemble.errors import CutError, UsageError
from densemble.nets import backbones
from densemble.nets.cut import Cut, CutList
from densemble.nets.measure import Measured, Traced, measure
from densemble.shapes import Size, format_size

REFERENCE_SIZE: Size = (240, 320)
SINGLE_SIZE_LEVELS = 4
UNPADDED = 1.3
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
        raise CutError(_no_map(backbone if isinstance(backbone, str) else type(backbone).__name__))
    return found


def _no_map(backbone: str) -> str:
    return (
        f"{backbone} has no feature map that alone holds all that was computed before: it cannot be cut; take another"
    )


def choose(
    found: Sequence[Cut],
    node: str,
    min_size: Size,
    backbone: str,
    wanted: str,
    max_stride: float | None = None,
    max_macs: float | None = None,
    strict: bool = True,
) -> Cut:
    """The cut named ``node``; for ``"auto"`` the deepest one that every limit permits.

    Args:
        found: what :func:`all_nodes` measured.
        node: qualified name, or ``"auto"``.
        min_size: smallest permitted (H, W) of the feature map.
        backbone: its name, for the messages.
        wanted: what ``min_size`` comes from, for the messages (``half of the 48x64 output``).
        max_stride: most input pixels per feature pixel, either axis; a map made smaller by unpadded convolutions
            counts as the stride it was built with.
        max_macs: most multiply-accumulates up to the cut, for one image.
        strict: refuse where no map is large enough; else the deepest of the largest maps is taken, as for a vision
            transformer, which has but one size.

    Returns:
        The cut, with the rule that chose it in ``why``.

    Raises:
        CutError: the node does not exist or its map is too small; names cuts that fit.
    """
    if not any(c.separates for c in found):
        raise CutError(_no_map(backbone))
    within = [c for c in found if c.separates and _within(c, max_stride, max_macs)]
    fitting = [c for c in within if c.height >= min_size[0] and c.width >= min_size[1]]
    limits = [f"keeps {format_size(min_size)} ({wanted})"]
    if not (strict or fitting) and within:
        largest = max(within, key=lambda c: c.height * c.width).size
        fitting = [c for c in within if c.size == largest]
        limits = [f"is {format_size(largest)}, the largest there is, for none {limits[0]}"]
        min_size = largest
    limits += [f"has a stride of at most {max_stride:g}"] if max_stride is not None else []
    limits += [f"takes at most {max_macs / 1e6:,.0f} MMACs"] if max_macs is not None else []
    if not fitting:
        raise CutError(
            f"no feature map of {backbone} at {_input(found)} {' and '.join(limits)}; take a larger input, a smaller "
            "output or a smaller min_size" + (", a larger max_stride or max_macs" if len(limits) > 1 else "")
        )
    deepest = fitting[-1]
    if node == "auto":
        places = f"{len(fitting)} place{'s' if len(fitting) > 1 else ''}"
        return replace(deepest, why=f"the deepest of {places} whose map {' and '.join(limits)}")
    offered = ", ".join(f"'{c.node}' ({c.channels}x{format_size(c.size)})" for c in _spread(fitting))
    named = [c for c in found if node in (c.node, c.graph_node) or c.graph_node.startswith(f"{node}.")]
    if not named:
        raise CutError(f"{backbone} has no node '{node}'; cuts that fit: {offered}")
    cut = named[-1]
    if cut.height < min_size[0] or cut.width < min_size[1]:
        raise CutError(
            f"cut '{node}' of {backbone} is {format_size(cut.size)}, smaller than {wanted}; the deepest cut that keeps "
            f"{format_size(min_size)} is '{deepest.node}' ({deepest.channels} channels); cuts that fit: {offered}; "
            "or permit it with a smaller min_size"
        )
    return replace(cut, why="named by the user")


def _within(cut: Cut, max_stride: float | None, max_macs: float | None) -> bool:
    # Unpadded convolutions leave a map smaller than the image divided by the stride they were built with.
    narrow = max_stride is None or max(cut.stride) <= UNPADDED * max_stride
    return narrow and (max_macs is None or cut.macs <= max_macs)


def _input(found: Sequence[Cut]) -> str:
    return format_size(found[0].input_size) if found else "this size"


def _spread(fitting: list[Cut]) -> list[Cut]:
    """The deepest cut of each size, at most four: enough to choose from."""
    by_size = {c.size: c for c in fitting}
    return list(by_size.values())[-4:]


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
