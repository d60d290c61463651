"""Select a cut: the automatic rule, its limits, and the messages if no node fits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from densemble.errors import CutError, did_you_mean
from densemble.nets.cut import Cut
from densemble.nets.heads import head_row
from densemble.nets.heads.user_head import MakeModule
from densemble.shapes import Size, format_size

DEFAULT_STRIDE = 16.0
MULTI_LEVEL_STRIDE = 32.0
"""Largest strides of an automatic cut, see docs/decisions/0005 and 0006. A multi-level head gets its detail from
earlier maps, so its cut can be deeper."""
UNPADDED = 1.3
"""Tolerance of ``max_stride``: unpadded convolutions give maps that are smaller than image size / nominal stride."""


@dataclass(frozen=True)
class Limits:
    """Limits of an automatic cut.

    Attributes:
        min_size: smallest (H, W) of the feature map.
        max_stride: largest number of input pixels per feature pixel on either axis; maps that unpadded convolutions
            made smaller count with their nominal stride.
        max_macs: largest number of multiply-accumulates per image up to the cut.
        lenient: if no map is large enough, take the largest, for example in a network with a single map size.
        levels: the head also uses the larger maps before the cut.
    """

    min_size: Size | None = None
    max_stride: float | None = None
    max_macs: float | None = None
    lenient: bool = False
    levels: bool = True

    def affordable(self, cut: Cut) -> bool:
        """Whether the work satisfies ``max_macs``."""
        return self.max_macs is None or cut.macs <= self.max_macs

    def permits(self, cut: Cut) -> bool:
        """Whether the cut satisfies all limits."""
        height, width = self.min_size or (1, 1)
        stride_fits = self.max_stride is None or max(cut.stride) <= UNPADDED * self.max_stride
        return self.affordable(cut) and stride_fits and cut.height >= height and cut.width >= width

    def for_head(self, head: str | MakeModule, size: Size, out_size: Size | None) -> "Limits":
        """The limits for one member; without ``min_size`` and ``max_stride``, the stride is at most 32 or 16.

        Args:
            head: as in :func:`head_row`; a multi-level head permits a stride of 32.
            size: (H, W) of the input.
            out_size: (h, w) of the output; ``None``: the input size. A smaller output permits a larger stride.

        Raises:
            UsageError: there is no such head.
        """
        levels = head_row(head).multi_level
        if self.min_size is not None or self.max_stride is not None:
            return replace(self, levels=levels)
        reduction = min(size[0] / out_size[0], size[1] / out_size[1]) if out_size else 1.0
        stride = max(MULTI_LEVEL_STRIDE if levels else DEFAULT_STRIDE, reduction)
        return replace(self, max_stride=stride, lenient=True, levels=levels)

    def __str__(self) -> str:
        size = [f"a map of at least {format_size(self.min_size)}"] if self.min_size else []
        stride = [f"a stride of at most {self.max_stride:g}"] if self.max_stride is not None else []
        work = [f"at most {self.max_macs / 1e6:,.0f} MMACs"] if self.max_macs is not None else []
        return " and ".join([*size, *stride, *work]) or "a map"


def choose(cuts: Sequence[Cut], node: str, within: Limits, backbone: str) -> Cut:
    """Select the cut named ``node``, or for ``"auto"`` the deepest cut that the limits permit.

    Args:
        cuts: measurements of all nodes.
        node: qualified name, or ``"auto"``.
        within: limits of an automatic cut; a named node must satisfy the limits that the user set, too.
        backbone: name used in messages.

    Returns:
        The cut, with the reason in ``why``.

    Raises:
        CutError: the node does not exist or violates a limit; the message lists cuts that fit.
    """
    usable = [c for c in cuts if c.separates]
    if not usable:
        raise CutError(no_map(backbone))
    if node != "auto":
        return _named(cuts, node, within, backbone)
    affordable = [c for c in usable if within.affordable(c)]
    returned = [c for c in affordable if c.listed and (within.lenient or within.permits(c))]
    if returned:
        return _of_returned(returned, within)
    fitting = [c for c in affordable if within.permits(c)]
    if fitting:
        return replace(fitting[-1], why=f"the deepest of {_nodes(fitting)} with {within}")
    if not (within.lenient and affordable):
        size = format_size(cuts[0].input_size)
        raise CutError(f"{backbone} at {size} has no node with {within}; {_remedies(within)}")
    largest = max(affordable, key=lambda c: c.height * c.width).size
    same_size = [c for c in affordable if c.size == largest]
    why = f"the deepest of {_nodes(same_size)} with the largest map, {format_size(largest)}; no node has {within}"
    return replace(same_size[-1], why=why)


def deepest_of(cuts: Sequence[Cut]) -> Cut:
    """The cut with the most parameters before it; of several, the last."""
    return max(reversed(cuts), key=lambda c: c.parameters)


def _of_returned(returned: Sequence[Cut], within: Limits) -> Cut:
    """Select among the maps that a network returns: the deepest, or the smallest for a multi-level head."""
    limits = "" if within.lenient and within.max_macs is None else f" with {within}"
    maps = f"of the {len(returned)} maps that the network returns{limits}"
    if not within.levels:
        return replace(deepest_of(returned), why=f"the deepest {maps}")
    area = min(c.height * c.width for c in returned)
    smallest = deepest_of([c for c in returned if c.height * c.width == area])
    return replace(smallest, why=f"the smallest {maps}")


def _named(cuts: Sequence[Cut], node: str, within: Limits, backbone: str) -> Cut:
    limits = replace(within, max_stride=None) if within.lenient else within  # the default stride is no user's limit
    fitting = [c for c in cuts if c.separates and limits.permits(c)]
    last_of_size = list({c.size: c for c in fitting}.values())
    offered = ", ".join(f"'{c.node}' ({c.channels}x{format_size(c.size)})" for c in last_of_size[-4:]) or "none"
    named = [c for c in cuts if node in (c.node, c.graph_node) or c.graph_node.startswith(f"{node}.")]
    if not named:
        hint = did_you_mean(node, [c.node for c in cuts])
        raise CutError(f"{backbone} has no node '{node}'; {hint}cuts that fit: {offered}")
    cut = named[-1]
    if not limits.permits(cut):
        deepest = f"'{fitting[-1].node}' ({fitting[-1].channels} channels)" if fitting else "none"
        raise CutError(
            f"cut '{node}' of {backbone} is {format_size(cut.size)}, with a stride of {max(cut.stride):.3g} and "
            f"{cut.macs / 1e6:,.0f} MMACs, but the limits are {limits}; the deepest cut within them is {deepest}; "
            f"cuts that fit: {offered}; or remove the limits"
        )
    return replace(cut, why="named by the user")


def _remedies(within: Limits) -> str:
    remedies = ["a larger input", "a smaller min_size"] if within.min_size else []
    remedies += ["a larger max_stride"] if within.max_stride is not None else []
    remedies += ["a larger max_macs"] if within.max_macs is not None else []
    return "take " + " or ".join(remedies)


def no_map(backbone: str) -> str:
    """Message for a network that has no node to cut at."""
    return f"{backbone} cannot be cut: no feature map separates early from late layers; take another backbone"


def _nodes(cuts: Sequence[Cut]) -> str:
    return f"{len(cuts)} node{'s' if len(cuts) > 1 else ''}"
