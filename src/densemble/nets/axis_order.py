"""Layouts: which axes of a tensor are the rows, columns and channels of a feature map.

``NCHW``, ``NHWC``, or ``NLC/16+1``: tokens in the order of the 16-pixel patches of the image, after 1 other token.
"""

import math
import re

from torch import Tensor

from densemble.errors import UsageError
from densemble.nets.counting import BATCH
from densemble.shapes import Size

Layout = str
POOLED_FROM = 96  # in an image of at least this size, a map of one pixel is a pooled average
MAX_PREFIX = 16
"""Largest number of tokens before the patch tokens: class, distillation, registers."""
_TOKENS = re.compile(r"NLC/(\d+)\+(\d+)")


def map_layout(shape: tuple[int, ...], size: Size) -> Layout | None:
    """Layout of a feature map of ``BATCH`` images of (H, W) ``size``; ``None`` if the tensor is no such map."""
    if len(shape) != 4 or shape[0] != BATCH or 0 in shape:
        return None
    if shape.count(1) >= 2 and min(size) >= POOLED_FROM:
        return None
    if _is_scaled(shape[2], shape[3], size):
        return "NCHW"
    return "NHWC" if _is_scaled(shape[1], shape[2], size) else None


def output_layout(shape: tuple[int, ...], size: Size) -> Layout | None:
    """Like :func:`map_layout`, but also accept tokens ``(B, L, C)`` whose number matches a grid of patches."""
    if len(shape) != 3 or shape[0] != BATCH or 0 in shape:
        return map_layout(shape, size)
    fitting = []
    for stride in range(2, min(size) + 1):
        for height, width in _grids(size, stride):
            prefix = shape[1] - height * width
            if height * width > 1 and 0 <= prefix <= MAX_PREFIX:
                uneven = size[0] % stride + size[1] % stride > 0
                fitting.append((prefix, uneven, stride & (stride - 1) > 0, stride))
    if not fitting:
        return None
    prefix, _, _, stride = min(fitting)
    return f"NLC/{stride}+{prefix}"


def is_tokens(layout: Layout) -> bool:
    """Whether the layout describes tokens ``(B, L, C)``."""
    return layout.startswith("NLC")


def to_nchw(tensor: Tensor, layout: Layout, size: Size) -> Tensor:
    """Convert a tensor of a network to a feature map ``(B, C, h, w)``.

    Args:
        tensor: output of the network.
        layout: layout of ``tensor``.
        size: (H, W) of the images that the network got.

    Raises:
        UsageError: the number of tokens is not the number of patches of the image.
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
        f"{tokens.shape[1]} tokens do not form a grid of {stride}-pixel patches of a {size[0]}x{size[1]} image; "
        "set input_size to a size that the network was designed for"
    )


def token_grid(layout: Layout) -> tuple[int, int]:
    """(pixels per patch, number of tokens before the patch tokens)."""
    match = _TOKENS.fullmatch(layout)
    assert match is not None, layout
    return int(match[1]), int(match[2])


def _grids(size: Size, stride: int) -> set[Size]:
    """Possible (rows, columns) of patches: whole patches only, or the remainder padded to one more patch."""
    return {(size[0] // stride, size[1] // stride), (-(-size[0] // stride), -(-size[1] // stride))}


def _is_scaled(height: int, width: int, size: Size) -> bool:
    if height > size[0] or width > size[1]:
        return height <= size[0] + 8 and width <= size[1] + 8 and (height - size[0]) == (width - size[1])
    return abs(math.log((size[0] / height) / (size[1] / width))) <= math.log(1 + 1.5 / min(height, width))
