"""Heads: feature maps go in, logits of the wanted channels and size come out.

A head is called as ``head(maps, size)``: maps ``[(B, C, H, W), ...]`` deepest first, size = the wanted (h, w); it
returns ``(B, K, h, w)``. Rows of ``HEADS`` say
whether a head uses several maps or only the deepest. Every head ends with one exact
resize, so it answers rightly to feature maps of any size; maps that are off by a pixel are aligned on the way.
``head.grid(maps, size)`` gives the logits before that last resize, at the head's own size.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets.heads.context import PoolingPyramid, SpatialPyramid
from densemble.nets.heads.head import DenseHead
from densemble.nets.heads.layers import DeconvStep, JoinStep, ResizeStep, SubpixelStep, normalized, resize, separable
from densemble.nets.heads.smp_decoders import DECODERS, SmpHead
from densemble.shapes import Size

WIDTH = 128
NARROWEST = 32
LATERAL = 48
SKIP_WIDTHS = (128, 96, 64, 48, 32)

MakeHead = Callable[[Sequence[int], int, int], DenseHead]
"""(channels of the maps, deepest first; out_channels; doublings of the largest of them) -> head."""


@dataclass(frozen=True)
class Head:
    """A row of ``HEADS``.

    Attributes:
        make: see :data:`MakeHead`.
        multi_level: uses all maps; else only the deepest, and an automatic cut keeps more detail.
        tuned: tried by ``densemble tune``.
    """

    make: MakeHead
    multi_level: bool = False
    tuned: bool = True


class StepHead(DenseHead):
    """A first layer at the map's own size, one step per doubling, a 1x1 convolution to logits."""

    def __init__(self, first: nn.Module, steps: Iterable[nn.Module], logits: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.steps = nn.ModuleList(steps)
        self.logits = logits

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """Only the deepest map is used."""
        x = self.first(maps[0])
        for step in self.steps:
            x = step(x, size)
        logits: Tensor = self.logits(x)
        return logits


class SkipHead(DenseHead):
    """U-Net-like (Ronneberger et al. 2015): from the deepest map up, every larger map joins at its own size.

    Where the largest map is smaller than what is wanted, as a vision transformer's, one step per doubling follows.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, doublings: int) -> None:
        super().__init__()
        deepest, *larger = channels
        widths = [SKIP_WIDTHS[min(i, len(SKIP_WIDTHS) - 1)] for i in range(len(channels))]
        self.first = normalized(nn.Conv2d(deepest, widths[0], 3, padding=1, bias=False), widths[0])
        self.laterals = nn.ModuleList(normalized(nn.Conv2d(c, LATERAL, 1, bias=False), LATERAL) for c in larger)
        self.steps = nn.ModuleList(JoinStep(a, LATERAL, b) for a, b in pairwise(widths))
        grown = [max(widths[-1] >> number, NARROWEST) for number in range(doublings + 1)]
        self.grow = nn.ModuleList(ResizeStep(a, b) for a, b in pairwise(grown))
        self.logits = nn.Conv2d(grown[-1], out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` at the head's own size."""
        x = self.first(maps[0])
        for larger, lateral, step in zip(maps[1:], self.laterals, self.steps, strict=True):
            x = step(x, lateral(larger))
        for step in self.grow:
            x = step(x, size)
        logits: Tensor = self.logits(x)
        return logits


class PyramidHead(DenseHead):
    """Feature pyramid (Lin et al. 2017) whose levels are summed at the largest (Kirillov et al. 2019).

    Every level is 128 wide, the last one too: logits that are a sum over many features learn to be sure in few steps,
    where those over 32 did not. Convolutions are depthwise and pointwise (Chollet 2017): nearly as good for an eighth
    of the work. Where the largest map is smaller than what is wanted, one step per doubling follows.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, doublings: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in channels)
        self.levels = nn.ModuleList(separable(WIDTH) for _ in channels)
        grown = [max(WIDTH >> number, NARROWEST) for number in range(doublings + 1)]
        self.grow = nn.ModuleList(ResizeStep(a, b) for a, b in pairwise(grown))
        self.logits = nn.Conv2d(grown[-1], out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` at the head's own size."""
        largest: Size = (int(maps[-1].shape[-2]), int(maps[-1].shape[-1]))
        above, total = None, None
        for features, lateral, level in zip(maps, self.laterals, self.levels, strict=True):
            x = lateral(features)
            x = x if above is None else x + resize(above, (int(x.shape[-2]), int(x.shape[-1])))
            own = resize(level(x), largest)
            above, total = x, own if total is None else total + own
        assert total is not None
        for step in self.grow:
            total = step(total, size)
        logits: Tensor = self.logits(total)
        return logits


def _step_head(first: Callable[[int, int], nn.Module], step: Callable[[int, int], nn.Module]) -> MakeHead:
    def build(channels: Sequence[int], out_channels: int, doublings: int) -> DenseHead:
        widths = [max(WIDTH >> number, NARROWEST) for number in range(doublings + 1)]
        steps = [step(a, b) for a, b in pairwise(widths)]
        return StepHead(first(channels[0], widths[0]), steps, nn.Conv2d(widths[-1], out_channels, 1))

    return build


def _convolution(in_channels: int, width: int) -> nn.Module:
    return normalized(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), width)


def _smp(decoder: str) -> Head:
    def build(channels: Sequence[int], out_channels: int, doublings: int) -> DenseHead:
        return SmpHead(decoder, channels, out_channels)

    return Head(build, multi_level=True, tuned=False)


HEADS: dict[str, Head] = {
    "fpn": Head(PyramidHead, multi_level=True),
    "skip": Head(SkipHead, multi_level=True),
    "upsample": Head(_step_head(_convolution, ResizeStep)),
    "aspp": Head(_step_head(SpatialPyramid, ResizeStep)),
    "ppm": Head(_step_head(PoolingPyramid, ResizeStep)),
    "deconv": Head(_step_head(_convolution, DeconvStep)),
    "subpixel": Head(_step_head(_convolution, SubpixelStep)),
    **{f"smp-{decoder}": _smp(decoder) for decoder in DECODERS},
}
"""Head by name."""


def require_head(name: str) -> None:
    """Checks that ``name`` is a head.

    Raises:
        UsageError: it is not; the nearest names are given.
    """
    if name not in HEADS:
        near = difflib.get_close_matches(name, HEADS, n=2, cutoff=0.5) or [head for head in HEADS if name in head]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"no head is named '{name}'; {hint}there are: {', '.join(HEADS)}")
