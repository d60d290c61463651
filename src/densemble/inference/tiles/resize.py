"""Resizing of what is too large to be held: an image made small block by block, a map grown window by window.

Both give what ``torch.nn.functional.interpolate`` gives of the whole, bilinear with ``align_corners=False``: making
small with ``antialias=True``, a triangle as wide as the factor; growing without.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from densemble.inference.tiles.windows import Box
from densemble.shapes import Size

BLOCK = 1024
_COLUMNS = 256


def blocks(size: Size) -> Iterator[Box]:
    """The image in blocks of at most ``BLOCK`` x ``BLOCK`` pixels that meet, row by row."""
    for top in range(0, size[0], BLOCK):
        for left in range(0, size[1], BLOCK):
            yield Box(top, left, min(BLOCK, size[0] - top), min(BLOCK, size[1] - left))


def reduce_image(read: Callable[[Box], Tensor], size: Size, channels: int, sizes: set[Size]) -> dict[Size, Tensor]:
    """An image at several sizes, each block of it read once.

    Args:
        read: gives the pixels of a box, float ``(C, h, w)``.
        size: (H, W) of the image.
        channels: C.
        sizes: that are wanted, (h, w) each.

    Returns:
        float32 ``(1, C, h, w)`` for each size.
    """
    totals = {wanted: torch.zeros(1, channels, *wanted) for wanted in sizes}
    if not sizes:
        return totals
    for box in blocks(size):
        pixels = read(box)
        for wanted, total in totals.items():
            top, vertical = antialiased(size[0], wanted[0], box.top, box.top + box.height)
            left, horizontal = antialiased(size[1], wanted[1], box.left, box.left + box.width)
            part = vertical @ (pixels @ horizontal.T)
            total[0, :, top : top + part.shape[-2], left : left + part.shape[-1]] += part
    return totals


def antialiased(length: int, resized: int, start: int, end: int) -> tuple[int, Tensor]:
    """What the pixels ``start`` to ``end`` (exclusive) of an axis add to the axis resized.

    Args:
        length: of the axis.
        resized: its length afterwards.
        start: of the part.
        end: of the part.

    Returns:
        The first resized pixel that they touch, and weights float32 ``(touched, end - start)``.
    """
    scale = length / resized
    reach = max(scale, 1.0)
    first = max(int((start - reach) / scale) - 1, 0)
    last = min(int((end + reach) / scale) + 2, resized)
    centres = scale * (np.arange(first, last) + 0.5)
    low = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((centres + reach + 0.5).astype(np.int64), length)
    places = np.arange(min(low[0], start), max(high[-1], end))
    weights = np.clip(1 - np.abs((places + 0.5)[None] - centres[:, None]) / reach, 0, None)
    weights *= (places >= low[:, None]) & (places < high[:, None])
    weights /= weights.sum(1, keepdims=True)
    part = weights[:, start - places[0] : end - places[0]]
    return first, torch.from_numpy(part.astype(np.float32))


def grown(maps: Tensor, size: Size, box: Box) -> Tensor:
    """A box of maps ``(B, K, h, w)`` resized to ``size``: float32 ``(B, K, box.height, box.width)``.

    Beyond the border the last pixel goes on. Each axis is a product with a narrow matrix, some columns at a time: of
    what fills a window, that is several times faster than picking and mixing pixels.
    """
    with torch.autocast(maps.device.type, enabled=False):  # it would multiply in half precision
        above, vertical = _bilinear(int(maps.shape[-2]), size[0], box.top, box.height, maps.device)
        rows = vertical @ maps[..., above : above + vertical.shape[1], :].float()
        result = rows.new_empty((*rows.shape[:-1], box.width))
        for left in range(0, box.width, _COLUMNS):
            count = min(_COLUMNS, box.width - left)
            before, horizontal = _bilinear(int(maps.shape[-1]), size[1], box.left + left, count, maps.device)
            seen = rows[..., before : before + horizontal.shape[1]]
            torch.matmul(seen, horizontal.T, out=result[..., left : left + count])
    return result


def _bilinear(length: int, resized: int, start: int, count: int, device: torch.device) -> tuple[int, Tensor]:
    """For ``count`` pixels of a resized axis from ``start`` on: the first pixel that they see, and the shares of it and
    of those after it, float32 ``(count, seen)``."""
    scale = np.float32(length) / np.float32(resized)  # in single precision, as torch does it
    places = scale * (np.arange(start, start + count, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    places = np.clip(places, 0, length - 1)
    before = places.astype(np.int64)
    after = np.minimum(before + 1, length - 1)
    share = places - before
    first = int(before[0])
    matrix = np.zeros((count, int(after[-1]) + 1 - first), dtype=np.float32)
    rows = np.arange(count)
    matrix[rows, before - first] = 1 - share
    matrix[rows, after - first] += share
    return first, torch.from_numpy(matrix).to(device)
