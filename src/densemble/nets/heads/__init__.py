"""Heads: modules that map feature maps to logits of the requested channels and size.

A head is called as ``head(maps, size)`` with maps ``[(B, C, H, W), ...]``, deepest first, and the (h, w) of the output;
it returns logits ``(B, K, h, w)``. ``head.grid(maps, size)`` returns the logits before the last resize.
"""

import difflib

from densemble.errors import UsageError
from densemble.nets.heads.aspp import AsppHead
from densemble.nets.heads.deconv import DeconvHead
from densemble.nets.heads.fpn import PyramidHead
from densemble.nets.heads.head import Head
from densemble.nets.heads.ppm import PpmHead
from densemble.nets.heads.skip import SkipHead
from densemble.nets.heads.smp import SMP_HEADS
from densemble.nets.heads.subpixel import SubpixelHead
from densemble.nets.heads.upsample import UpsampleHead

HEADS: dict[str, Head] = {
    "fpn": Head(PyramidHead, multi_level=True),
    "skip": Head(SkipHead, multi_level=True),
    "upsample": Head(UpsampleHead),
    "aspp": Head(AsppHead),
    "ppm": Head(PpmHead),
    "deconv": Head(DeconvHead),
    "subpixel": Head(SubpixelHead),
    **SMP_HEADS,
}
"""Head by name."""


def require_head(name: str) -> None:
    """Check that ``name`` is a head.

    Raises:
        UsageError: there is no such head; the message lists the nearest names.
    """
    if name not in HEADS:
        near = difflib.get_close_matches(name, HEADS, n=2, cutoff=0.5) or [head for head in HEADS if name in head]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"no head is named '{name}'; {hint}there are: {', '.join(HEADS)}")
