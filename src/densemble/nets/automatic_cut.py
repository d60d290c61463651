"""Which cut: the rule of the automatic choice, the limits that steer it, and what is said where none fits."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from densemble.errors import CutError
from densemble.nets.cut import Cut
from densemble.nets.heads import HEADS
from densemble.shapes import Size, format_size

DEFAULT_STRIDE = 16.0
STRIDE_OF_LEVELS = 32.0
"""Chosen by docs/decisions/0005 and 0006: deep enough for meaning; a head that also sees the maps before it has the
detail from those, and can go deeper."""
UNPADDED = 1.3
"""Unpadded convolutions leave a map smaller than the image divided by the stride they were built with."""


@dataclass(frozen=True)
class Limits:
    """What an automatic cut must keep to.

    Attributes:
        min_size: smallest (H, W) of the feature map.
        max_stride: most input pixels per feature pixel, either axis; maps that unpadded convolutions made smaller
            count as the stride they were built with.
        max_macs: most multiply-accumulates up to the cut, for one image.
        lenient: take the largest map where none is large enough, as for a network that has but one size.
        levels: the head sees the larger maps before the cut as well.
    """

    min_size: Size | None = None
    max_stride: float | None = None
    max_macs: float | None = None
    lenient: bool = False
    levels: bool = True

    def large_enough(self, cut: Cut) -> bool:
        """Whether the map keeps to ``min_size`` and ``max_stride``."""
        least = self.min_size or (1, 1)
        narrow = self.max_stride is None or max(cut.stride) <= UNPADDED * self.max_stride
        return narrow and cut.height >= least[0] and cut.width >= least[1]

    def affordable(self, cut: Cut) -> bool:
        """Whether the work keeps to ``max_macs``."""
        return self.max_macs is None or cut.macs <= self.max_macs

    def permits(self, cut: Cut) -> bool:
        """Whether the cut keeps to all limits."""
        return self.affordable(cut) and self.large_enough(cut)

    def for_head(self, head: str, size: Size, out_size: Size | None) -> "Limits":
        """The limits of a member; without ``min_size`` and ``max_stride``, a stride of at most 32 or 16.

        Args:
            head: row of ``HEADS``; one that sees the larger maps before the cut as well permits 32.
            size: (H, W) of the input.
            out_size: (h, w) of the output, default the input's; a smaller one permits a larger stride.
        """
        levels = HEADS[head].multi_level
        if self.min_size is not None or self.max_stride is not None:
            return replace(self, levels=levels)
        shrinks = min(size[0] / out_size[0], size[1] / out_size[1]) if out_size else 1.0
        stride = max(STRIDE_OF_LEVELS if levels else DEFAULT_STRIDE, shrinks)
        return replace(self, max_stride=stride, lenient=True, levels=levels)

    def __str__(self) -> str:
        size = [f"a map of at least {format_size(self.min_size)}"] if self.min_size else []
        stride = [f"a stride of at most {self.max_stride:g}"] if self.max_stride is not None else []
        return " and ".join([*size, *stride, *self._work()]) or "a map"

    def _work(self) -> list[str]:
        return [f"at most {self.max_macs / 1e6:,.0f} MMACs"] if self.max_macs is not None else []


def choose(found: Sequence[Cut], node: str, within: Limits, backbone: str) -> Cut:
    """The cut named ``node``; for ``"auto"`` the deepest one that the limits permit.

    Args:
        found: what was measured at every node.
        node: qualified name, or ``"auto"``.
        within: limits of the automatic choice; a named node must keep to those that the user set, too.
        backbone: its name, for the messages.

    Returns:
        The cut, with the rule that chose it in ``why``.

    Raises:
        CutError: the node does not exist or its map is too small; names cuts that fit.
    """
    usable = [c for c in found if c.separates]
    if not usable:
        raise CutError(no_map(backbone))
    if node != "auto":
        return _named(found, node, within, backbone)
    returned = [c for c in usable if c.listed and within.affordable(c) and (within.lenient or within.permits(c))]
    if returned:
        return _of_returned(returned, within)
    fitting = [c for c in usable if within.permits(c)]
    if fitting:
        return replace(fitting[-1], why=f"the deepest of {_places(fitting)} with {within}")
    affordable = [c for c in usable if within.affordable(c)]
    if not (within.lenient and affordable):
        raise CutError(
            f"{backbone} at {format_size(found[0].input_size)} has no place with {within}; {_remedies(within)}"
        )
    largest = max(affordable, key=lambda c: c.height * c.width).size
    same = [c for c in affordable if c.size == largest]
    why = (
        f"the deepest of {_places(same)} with a map of {format_size(largest)}, the largest there is: none has {within}"
    )
    return replace(same[-1], why=why)


def depth(cut: Cut) -> int:
    """How much of a network lies before a cut."""
    return cut.parameters


def deepest_of(cuts: Sequence[Cut]) -> Cut:
    """The cut that the most of the network lies before; of several, the last."""
    return max(reversed(cuts), key=depth)


def _of_returned(returned: Sequence[Cut], within: Limits) -> Cut:
    """Of the maps that a network returns, the deepest; the smallest where the head sees the larger ones as well."""
    asked = "" if within.lenient and within.max_macs is None else f" with {within}"
    maps = f"of the {len(returned)} maps that the network returns{asked}"
    if not within.levels:
        return replace(deepest_of(returned), why=f"the deepest {maps}")
    area = min(c.height * c.width for c in returned)
    smallest = deepest_of([c for c in returned if c.height * c.width == area])
    return replace(smallest, why=f"the smallest {maps}")


def _named(found: Sequence[Cut], node: str, within: Limits, backbone: str) -> Cut:
    asked = replace(within, max_stride=None) if within.lenient else within  # nobody asked for the default stride
    fitting = [c for c in found if c.separates and asked.permits(c)]
    offered = ", ".join(f"'{c.node}' ({c.channels}x{format_size(c.size)})" for c in _spread(fitting)) or "none"
    named = [c for c in found if node in (c.node, c.graph_node) or c.graph_node.startswith(f"{node}.")]
    if not named:
        near = difflib.get_close_matches(node, [c.node for c in found], n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
        raise CutError(f"{backbone} has no node '{node}'; {hint}cuts that fit: {offered}")
    cut = named[-1]
    if not asked.permits(cut):
        deepest = f"'{fitting[-1].node}' ({fitting[-1].channels} channels)" if fitting else "none"
        raise CutError(
            f"cut '{node}' of {backbone} is {format_size(cut.size)}, with a stride of {max(cut.stride):.3g} and "
            f"{cut.macs / 1e6:,.0f} MMACs, and you ask for {asked}; the deepest cut that keeps to that is {deepest}; "
            f"cuts that fit: {offered}; or name no limit"
        )
    return replace(cut, why="named by the user")


def _remedies(within: Limits) -> str:
    ways = ["a larger input", "a smaller min_size"] if within.min_size else []
    ways += ["a larger max_stride"] if within.max_stride is not None else []
    ways += ["a larger max_macs"] if within.max_macs is not None else []
    return "take " + " or ".join(ways)


def no_map(backbone: str) -> str:
    """What is said of a network that has no place to cut."""
    return (
        f"{backbone} has no feature map that alone holds all that was computed before: it cannot be cut; take another"
    )


def _places(cuts: Sequence[Cut]) -> str:
    return f"{len(cuts)} place{'s' if len(cuts) > 1 else ''}"


def _spread(fitting: Sequence[Cut]) -> list[Cut]:
    """The deepest cut of each size, at most four: enough to choose from."""
    by_size = {c.size: c for c in fitting}
    return list(by_size.values())[-4:]
