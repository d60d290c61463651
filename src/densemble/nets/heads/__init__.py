"""Heads: modules that map feature maps to logits of the requested channels and size.

A head is called as ``head(maps, size)`` with maps ``[(B, C, H, W), ...]``, deepest first, and the (h, w) of the output;
it returns logits ``(B, K, h, w)``. ``head.grid(maps, size)`` returns the logits before the last resize.
"""

from densemble.errors import UsageError, unknown_name
from densemble.nets.heads.aspp import make_aspp
from densemble.nets.heads.deconv import make_deconv
from densemble.nets.heads.fpn import PyramidHead
from densemble.nets.heads.head import Head
from densemble.nets.heads.ppm import make_ppm
from densemble.nets.heads.skip import SkipHead
from densemble.nets.heads.smp import SMP_HEADS
from densemble.nets.heads.subpixel import make_subpixel
from densemble.nets.heads.upsample import make_upsample

HEADS: dict[str, Head] = {
    "fpn": Head(PyramidHead, multi_level=True),
    "skip": Head(SkipHead, multi_level=True),
    "upsample": Head(make_upsample),
    "aspp": Head(make_aspp),
    "ppm": Head(make_ppm),
    "deconv": Head(make_deconv),
    "subpixel": Head(make_subpixel),
    **SMP_HEADS,
}
"""Head by name."""


def require_head(name: str) -> None:
    """Check that ``name`` is a head.

    Raises:
        UsageError: there is no such head; the message lists the nearest names.
    """
    if name not in HEADS:
        raise UsageError(unknown_name("head", name, HEADS))
