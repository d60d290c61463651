"""Head ``skip``: U-Net-like skip connections."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from densemble.nets.heads.head import DenseHead
from densemble.nets.heads.layers import (
    ResizeConvolution,
    convolution3x3,
    halving_widths,
    normalized,
    resize_steps,
    run_steps,
)
from densemble.shapes import Size, size_of

LATERAL = 48
LEVEL_WIDTHS = (128, 96, 64, 48, 32)


class SkipStep(nn.Sequential):
    """Resize to a larger map, concatenate it, 3x3 convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__(*normalized(ResizeConvolution(in_channels + skip_channels, out_channels), out_channels))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` and ``(B, C', h, w)`` -> ``(B, K, h, w)``."""
        convolution, normalization, activation = self
        return activation(normalization(convolution(x, size_of(skip), skip)))  # type: ignore[no-any-return]


class SkipHead(DenseHead):
    """U-Net-like head (Ronneberger et al. 2015): start from the deepest map and add each larger map at its size.

    If the largest map is smaller than the output, as in a vision transformer, one step per doubling follows.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, doublings: int) -> None:
        super().__init__()
        deepest, *larger = channels
        widths = [LEVEL_WIDTHS[min(i, len(LEVEL_WIDTHS) - 1)] for i in range(len(channels))]
        self.first = convolution3x3(deepest, widths[0])
        self.laterals = nn.ModuleList(normalized(nn.Conv2d(c, LATERAL, 1, bias=False), LATERAL) for c in larger)
        self.steps = nn.ModuleList(SkipStep(a, LATERAL, b) for a, b in pairwise(widths))
        grow_widths = halving_widths(widths[-1], doublings)
        self.grow = resize_steps(grow_widths)
        self.logits = nn.Conv2d(grow_widths[-1], out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` before the last resize."""
        x = self.first(maps[0])
        for larger, lateral, step in zip(maps[1:], self.laterals, self.steps, strict=True):
            x = step(x, lateral(larger))
        return run_steps(x, self.grow, self.logits, size)
