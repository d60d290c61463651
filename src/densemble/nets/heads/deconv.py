"""Head ``deconv``: transposed convolutions."""

from functools import partial

from torch import nn

from densemble.nets.heads.layers import DoublingStep, convolution3x3, normalized
from densemble.nets.heads.step_head import StepHead


class DeconvStep(DoublingStep):
    """4x4 transposed convolution of stride 2, batch normalization, ReLU: ``(B, C, H, W)`` -> ``(B, K, 2H, 2W)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        super().__init__(*normalized(convolution, out_channels))


make_deconv = partial(StepHead, convolution3x3, DeconvStep)
"""3x3 convolution, then a transposed convolution per doubling."""
