"""Base class of the heads that use only the deepest feature map and double it step by step."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from densemble.nets.heads.head import DenseHead
from densemble.nets.heads.layers import WIDTH, halving_widths, run_steps
from densemble.shapes import Size

MakeLayer = Callable[[int, int], nn.Module]
"""(input channels, output channels) -> layer."""


class StepHead(DenseHead):
    """A first layer at the resolution of the map, one step per doubling, and a 1x1 convolution to logits.

    Args:
        make_first: makes the first layer.
        make_step: makes a step, called with a map and a target size.
        channels: channels of the feature maps, deepest first.
        out_channels: K.
        doublings: number of steps.
    """

    def __init__(
        self, make_first: MakeLayer, make_step: MakeLayer, channels: Sequence[int], out_channels: int, doublings: int
    ) -> None:
        super().__init__()
        widths = halving_widths(WIDTH, doublings)
        # Steps are made before the first layer: the order decides which random numbers a layer gets.
        steps = [make_step(a, b) for a, b in pairwise(widths)]
        self.first = make_first(channels[0], widths[0])
        self.steps = nn.ModuleList(steps)
        self.logits = nn.Conv2d(widths[-1], out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` before the last resize."""
        return run_steps(self.first(maps[0]), self.steps, self.logits, size)
