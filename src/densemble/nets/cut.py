"""A cut of a backbone with its measurements, and a list of cuts that prints as a table."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, SupportsIndex, overload

from densemble.nets.axis_order import Layout
from densemble.notebook import card, facts, table
from densemble.shapes import Size, format_size

Kind = Literal["graph", "stages", "outputs"]


@dataclass(frozen=True)
class Cut:
    """A node at which a backbone can be truncated, with its measurements.

    Attributes:
        node: qualified name, as in torchvision's feature extraction (``features.4``, ``layer2``).
        channels: C of the feature map.
        height: rows of the feature map for an input of ``input_size``.
        width: columns of the feature map.
        stride: input pixels per feature pixel, (vertical, horizontal), measured as the ratio of sizes.
        macs: multiply-accumulates per image up to this node.
        parameters: number of trainable values up to this node.
        receptive_field: (vertical, horizontal) image pixels that one feature pixel depends on; ``None`` if it depends
            on the whole image (attention, global pooling) or if an operation is unknown.
        offset: (vertical, horizontal) image coordinate of the centre of the receptive field of feature pixel (0, 0);
            the centre of the first image pixel is 0. A grid that divides the image evenly has ``(stride - 1) / 2``;
            padding makes the offset smaller, unpadded convolutions make it larger.
        separates: no later node needs a value from before this node. This is false inside a residual or dense block:
            a network cut there loses a branch.
        input_size: (H, W) of the image for the measurement.
        graph_node: name of the node in the graph, of which ``node`` may be a short form.
        kind: ``graph``, a node of the traced graph; ``stages``, an intermediate map of timm's feature interface; or
            ``outputs``, a map that the network returns, named by its path (``hidden_states.4``).
        layout: order of the axes at this node inside the network; the backbone always returns NCHW.
        listed: the network returns this map in a list, dictionary or dataclass.
        why: reason for the selection of this cut; empty if it was not selected.
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
        """Plain values for JSON."""
        values = asdict(self)
        for internal in ("graph_node", "layout"):
            values.pop(internal)
        return values

    def _repr_html_(self) -> str:
        """Return the measurements and the reason for the selection as HTML, for notebooks."""
        values = {name: show(self) for name, show in _COLUMNS.items() if name != "node"}
        rest = {
            "offset": _format_pair(self.offset, ".3g"),
            "image": format_size(self.input_size),
            "why": self.why or None,
        }
        return card(f"Cut at {self.node}", table(list(values), [list(values.values())]), facts(rest))


def _format_pair(values: tuple[float, float] | None, text: str) -> str:
    return "-" if values is None else f"{values[0]:{text}}x{values[1]:{text}}"


_COLUMNS: dict[str, Callable[[Cut], str]] = {
    "node": lambda c: c.node,
    "channels": lambda c: str(c.channels),
    "H x W": lambda c: format_size(c.size),
    "stride": lambda c: _format_pair(c.stride, ".3g"),
    "sees": lambda c: _format_pair(c.receptive_field, "d"),
    "params": lambda c: f"{c.parameters / 1e6:,.2f} M",
    "MMACs": lambda c: f"{c.macs / 1e6:,.0f}",
}


class CutList(list[Cut]):
    """Cuts in the order of the network; prints as a table in a terminal and in a notebook."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Cut: ...
    @overload
    def __getitem__(self, index: slice) -> "CutList": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Cut | CutList":
        item = super().__getitem__(index)
        return CutList(item) if isinstance(item, list) else item

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
        return table(list(_COLUMNS), ([show(cut) for show in _COLUMNS.values()] for cut in self))
