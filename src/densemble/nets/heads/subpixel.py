"""Head ``subpixel``: convolutions whose channels become pixels."""

from functools import partial

import torch
from torch import nn

from densemble.nets.heads.layers import DoublingStep, convolution3x3
from densemble.nets.heads.step_head import StepHead


class SubpixelStep(DoublingStep):
    """3x3 convolution to four times the channels, PixelShuffle, batch normalization, ReLU (Shi et al. 2016).

    The four filters of an output channel start with equal weights (ICNR, Aitken et al. 2017), so that the first maps
    have no checkerboard pattern.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(convolution.weight[::4].repeat_interleave(4, 0))
        super().__init__(convolution, nn.PixelShuffle(2), nn.BatchNorm2d(out_channels), nn.ReLU())


make_subpixel = partial(StepHead, convolution3x3, SubpixelStep)
"""3x3 convolution, then a subpixel convolution per doubling."""
