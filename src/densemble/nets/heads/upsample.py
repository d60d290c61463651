"""Head ``upsample``: bilinear resize and convolution."""

from collections.abc import Sequence

from densemble.nets.heads.layers import ResizeStep, convolution3x3
from densemble.nets.heads.step_head import StepHead


class UpsampleHead(StepHead):
    """3x3 convolution, then a bilinear resize and a 3x3 convolution per doubling."""

    def __init__(self, channels: Sequence[int], out_channels: int, doublings: int) -> None:
        super().__init__(convolution3x3, ResizeStep, channels, out_channels, doublings)
