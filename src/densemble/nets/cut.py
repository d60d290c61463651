"""Cut: a place where a backbone can end, with what was measured there; CutList: a table of them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, SupportsIndex, overload

from densemble.nets.axis_order import Layout
from densemble.shapes import Size, format_size

Kind = Literal["graph", "stages", "outputs"]


@dataclass(frozen=True)
class Cut:
    """A place where a backbone can end and what was measured there.

    Attributes:
        node: qualified name, as in torchvision's feature extraction (``features.4``, ``layer2``).
        channels: C of the feature map.
        height: rows of the feature map for an input of ``input_size``.
        width: columns.
        stride: input pixels per feature pixel, (vertical, horizontal), measured as the ratio of sizes.
        macs: multiply-accumulates from the image up to here, for one image.
        parameters: numbers that are learned from the image up to here.
        receptive_field: (vertical, horizontal) pixels of the image that one feature pixel sees; ``None`` where it
            sees the whole image (attention, global pooling) or where an operation is not known.
        offset: (vertical, horizontal) image coordinate of the centre of what feature pixel (0, 0) sees; the centre
            of the first image pixel is 0. A grid that divides the image evenly has ``(stride - 1) / 2``; less means
            that padding moved it outwards, more that unpadded convolutions moved it inwards.
        separates: nothing that was computed before this node is needed after it; inside a residual or dense
            block that is false, and a network cut there loses a branch.
        input_size: (H, W) it was measured at.
        graph_node: the node's name in the graph, where ``node`` is a shorter one.
        kind: ``graph``, a node of the traced graph; ``stages``, a stage that the network itself gives out; or
            ``outputs``, a map that it returns, named by its path (``hidden_states.4``).
        layout: order of the axes that the network computes in at this node; the backbone always gives out NCHW.
        listed: the network returns this map, with others or alone, in a list, dictionary or dataclass.
        why: the rule by which it was chosen, in words; empty where nobody chose it.
    """

    node: str
    channels: int
    height: int
    width: int
    stride: tuple[float, float]
    macs: int
    parameters: int
    receptive_field: Size | None
    offset: tuple[float, float] | None
    separates: bool
    input_size: Size
    graph_node: str
    kind: Kind = "graph"
    layout: Layout = "NCHW"
    listed: bool = False
    why: str = field(default="", compare=False)

    @property
    def size(self) -> Size:
        """(height, width) of the feature map."""
        return self.height, self.width

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        for internal in ("graph_node", "layout"):
            values.pop(internal)
        return values


def _two(values: tuple[float, float] | None, text: str) -> str:
    return "-" if values is None else f"{values[0]:{text}}x{values[1]:{text}}"


_COLUMNS: dict[str, Callable[[Cut], str]] = {
    "node": lambda c: c.node,
    "channels": lambda c: str(c.channels),
    "H x W": lambda c: format_size(c.size),
    "stride": lambda c: _two(c.stride, ".3g"),
    "sees": lambda c: _two(c.receptive_field, "d"),
    "params": lambda c: f"{c.parameters / 1e6:,.2f} M",
    "MMACs": lambda c: f"{c.macs / 1e6:,.0f}",
}


class CutList(list[Cut]):
    """Cuts in the order of the network; a table in a terminal and in a notebook."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Cut: ...
    @overload
    def __getitem__(self, index: slice) -> "CutList": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Cut | CutList":
        found = super().__getitem__(index)
        return CutList(found) if isinstance(found, list) else found

    def __str__(self) -> str:
        rows = [tuple(_COLUMNS), *(tuple(show(cut) for show in _COLUMNS.values()) for cut in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        node, *rest = _COLUMNS.values()
        body = "".join(
            f"<tr><td><code>{node(cut)}</code></td>{''.join(f'<td>{show(cut)}</td>' for show in rest)}</tr>"
            for cut in self
        )
        return f"<table><tr>{head}</tr>{body}</table>"
