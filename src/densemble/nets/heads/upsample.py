"""Head ``upsample``: bilinear resize and convolution."""

from functools import partial

from densemble.nets.heads.layers import ResizeStep, convolution3x3
from densemble.nets.heads.step_head import StepHead

make_upsample = partial(StepHead, convolution3x3, ResizeStep)
"""3x3 convolution, then a bilinear resize and a 3x3 convolution per doubling."""
