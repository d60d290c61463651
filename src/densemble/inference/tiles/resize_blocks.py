"""Resizing in parts: downsampling of an image block by block, upsampling of a map box by box.

Both give the values of bilinear ``torch.nn.functional.interpolate`` with ``align_corners=False`` of the whole:
downsampling with ``antialias=True``, a triangle filter as wide as the factor; upsampling without.
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
    """Adjacent blocks of at most ``BLOCK`` x ``BLOCK`` pixels that cover the image, row by row."""
    for top in range(0, size[0], BLOCK):
        for left in range(0, size[1], BLOCK):
            yield Box(top, left, min(BLOCK, size[0] - top), min(BLOCK, size[1] - left))


def reduce_image(read: Callable[[Box], Tensor], size: Size, channels: int, sizes: set[Size]) -> dict[Size, Tensor]:
    """Resize an image to several smaller sizes; each block of it is read once.

    Args:
        read: returns the pixels of a box, float ``(C, h, w)``.
        size: (H, W) of the image.
        channels: C.
        sizes: requested sizes (h, w).

    Returns:
        float32 ``(1, C, h, w)`` for each size.
    """
    totals = {resized: torch.zeros(1, channels, *resized) for resized in sizes}
    if not sizes:
        return totals
    for box in blocks(size):
        pixels = read(box)
        for resized, total in totals.items():
            top, vertical = antialiased_weights(size[0], resized[0], box.top, box.top + box.height)
            left, horizontal = antialiased_weights(size[1], resized[1], box.left, box.left + box.width)
            part = vertical @ (pixels @ horizontal.T)
            total[0, :, top : top + part.shape[-2], left : left + part.shape[-1]] += part
    return totals


def antialiased_weights(length: int, resized: int, start: int, end: int) -> tuple[int, Tensor]:
    """Weights of the pixels ``start`` to ``end`` (exclusive) of an axis in the resized axis.

    Args:
        length: length of the axis.
        resized: length of the resized axis.
        start: first pixel of the part.
        end: end of the part.

    Returns:
        The first resized pixel that the part contributes to, and weights float32 ``(contributed, end - start)``.
    """
    scale = length / resized
    reach = max(scale, 1.0)
    first = max(int((start - reach) / scale) - 1, 0)
    last = min(int((end + reach) / scale) + 2, resized)
    centres = scale * (np.arange(first, last) + 0.5)
    low = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((centres + reach + 0.5).astype(np.int64), length)
    pixels = np.arange(min(low[0], start), max(high[-1], end))
    weights = np.clip(1 - np.abs((pixels + 0.5)[None] - centres[:, None]) / reach, 0, None)
    weights *= (pixels >= low[:, None]) & (pixels < high[:, None])
    weights /= weights.sum(1, keepdims=True)
    part = weights[:, start - pixels[0] : end - pixels[0]]
    return first, torch.from_numpy(part.astype(np.float32))


def upsample_box(maps: Tensor, size: Size, box: Box) -> Tensor:
    """Resize maps ``(B, K, h, w)`` to ``size`` and return a box of them, float32 ``(B, K, box.height, box.width)``.

    Beyond the border, the last pixel is repeated. Each axis is a product with a narrow matrix, some columns at a time;
    at the size of a window, this is several times faster than gathering and mixing pixels.
    """
    with torch.autocast(maps.device.type, enabled=False):  # autocast would multiply in half precision
        above, vertical = _bilinear(int(maps.shape[-2]), size[0], box.top, box.height, maps.device)
        rows = vertical @ maps[..., above : above + vertical.shape[1], :].float()
        result = rows.new_empty((*rows.shape[:-1], box.width))
        for left in range(0, box.width, _COLUMNS):
            count = min(_COLUMNS, box.width - left)
            before, horizontal = _bilinear(int(maps.shape[-1]), size[1], box.left + left, count, maps.device)
            source = rows[..., before : before + horizontal.shape[1]]
            torch.matmul(source, horizontal.T, out=result[..., left : left + count])
    return result


def _bilinear(length: int, resized: int, start: int, count: int, device: torch.device) -> tuple[int, Tensor]:
    """Weights of ``count`` pixels of a resized axis from ``start`` on.

    Returns:
        The first source pixel, and the weights of it and the following ones, float32 ``(count, sources)``.
    """
    scale = np.float32(length) / np.float32(resized)  # single precision, as in torch
    positions = scale * (np.arange(start, start + count, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    positions = np.clip(positions, 0, length - 1)
    before = positions.astype(np.int64)
    after = np.minimum(before + 1, length - 1)
    share = positions - before
    first = int(before[0])
    matrix = np.zeros((count, int(after[-1]) + 1 - first), dtype=np.float32)
    rows = np.arange(count)
    matrix[rows, before - first] = 1 - share
    matrix[rows, after - first] += share
    return first, torch.from_numpy(matrix).to(device)
