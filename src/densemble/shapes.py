"""Names of axes and functions for sizes. All shapes in densemble are written with these letters.

    B  images in a batch          M  members of an ensemble
    C  channels of an image       K  channels of a map (classes, or 1)
    H, W  size of an image        h, w  size of a map

Sizes are always (height, width) in pixels; as text, ``240x320``.
"""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from densemble.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
Array = np.ndarray[Any, Any]


def size_of(maps: "Tensor | Array") -> Size:
    """Return (height, width), the last two axes of maps or images ``(..., H, W)``."""
    return maps.shape[-2], maps.shape[-1]  # int() would fix the size in exported graphs


def is_fixed(*sizes: Size) -> bool:
    """Whether all sizes are plain integers; in a graph exported for images of any size, some are symbolic."""
    return all(isinstance(side, int) for size in sizes for side in size)


def is_size(maps: "Tensor | Array", size: Size) -> bool:
    """Whether maps ``(..., H, W)`` are known to have a size; ``False`` if one of the two is symbolic."""
    return is_fixed(size_of(maps), size) and size_of(maps) == size


def parse_size(text: str) -> Size:
    """Parse ``"240x320"`` (height x width in pixels) to ``(240, 320)``.

    Raises:
        UsageError: the text is not two positive integers joined by ``x``.
    """
    match = re.fullmatch(r"\s*([1-9]\d*)\s*[xX]\s*([1-9]\d*)\s*", text)
    if match is None:
        raise UsageError(f"size '{text}' is not HEIGHTxWIDTH in pixels; write it as 240x320")
    return int(match[1]), int(match[2])


def format_size(size: Size) -> str:
    """Format ``(240, 320)`` as ``"240x320"``."""
    return f"{size[0]}x{size[1]}"
