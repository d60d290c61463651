"""Layouts: how the axes of a network's tensor stand for rows, columns and channels of a feature map.

``NCHW``; ``NHWC``; or ``NLC/16+1``: tokens in the order of the image's patches of 16 pixels, behind 1 that is none.
"""

import math
import re

from torch import Tensor

from densemble.errors import UsageError
from densemble.nets.counting import BATCH
from densemble.shapes import Size

Layout = str
POOLED_FROM = 96  # a map of one pixel is what is left of a small image, and of a larger one its average
MOST_PREFIX = 16
"""Most tokens that stand before those of the patches: class, distillation, registers."""
_TOKENS = re.compile(r"NLC/(\d+)\+(\d+)")


def map_layout(shape: tuple[int, ...], size: Size) -> Layout | None:
    """The layout of a tensor of ``BATCH`` images of (H, W) ``size`` whose axes are the image's at a smaller scale."""
    if len(shape) != 4 or shape[0] != BATCH or 0 in shape:
        return None
    if shape.count(1) >= 2 and min(size) >= POOLED_FROM:
        return None
    if _is_scaled(shape[2], shape[3], size):
        return "NCHW"
    return "NHWC" if _is_scaled(shape[1], shape[2], size) else None


def output_layout(shape: tuple[int, ...], size: Size) -> Layout | None:
    """As :func:`map_layout`, and tokens ``(B, L, C)`` whose number is that of a grid of patches too."""
    if len(shape) != 3 or shape[0] != BATCH or 0 in shape:
        return map_layout(shape, size)
    fitting = []
    for stride in range(2, min(size) + 1):
        for height, width in _grids(size, stride):
            prefix = shape[1] - height * width
            if height * width > 1 and 0 <= prefix <= MOST_PREFIX:
                uneven = size[0] % stride + size[1] % stride > 0
                fitting.append((prefix, uneven, stride & (stride - 1) > 0, stride))
    if not fitting:
        return None
    prefix, _, _, stride = min(fitting)
    return f"NLC/{stride}+{prefix}"


def is_tokens(layout: Layout) -> bool:
    """Whether the tensor is a row of tokens."""
    return layout.startswith("NLC")


def to_nchw(tensor: Tensor, layout: Layout, size: Size) -> Tensor:
    """The map ``(B, C, h, w)`` that a tensor holds.

    Args:
        tensor: as the network computed it.
        layout: of its axes.
        size: (H, W) of the images that the network saw.

    Raises:
        UsageError: tokens that are not as many as the image has patches.
    """
    if layout == "NCHW":
        return tensor
    if layout == "NHWC":
        return tensor.permute(0, 3, 1, 2).contiguous()
    stride, prefix = token_grid(layout)
    tokens = tensor[:, prefix:]
    for grid in _grids(size, stride):
        if grid[0] * grid[1] == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)
    raise UsageError(
        f"{tokens.shape[1]} tokens are no grid of {stride}-pixel patches of a {size[0]}x{size[1]} image; "
        "set input_size to one that the network was made for"
    )


def token_grid(layout: Layout) -> tuple[int, int]:
    """Pixels per patch, and the number of tokens before those of the patches."""
    match = _TOKENS.fullmatch(layout)
    assert match is not None, layout
    return int(match[1]), int(match[2])


def _grids(size: Size, stride: int) -> set[Size]:
    """Rows and columns of patches: whole ones only, or what is left over padded to one more."""
    return {(size[0] // stride, size[1] // stride), (-(-size[0] // stride), -(-size[1] // stride))}


def _is_scaled(height: int, width: int, size: Size) -> bool:
    if height > size[0] or width > size[1]:
        return height <= size[0] + 8 and width <= size[1] + 8 and (height - size[0]) == (width - size[1])
    return abs(math.log((size[0] / height) / (size[1] / width))) <= math.log(1 + 1.5 / min(height, width))
