"""Read windows of TIFF files; only the tiles or strips that a window overlaps are read and decoded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage import tiff, tiff_directories
from densemble.storage.decoding_memory import require_memory
from densemble.storage.pixels import Pixels, intersect_masks, require_numbers
from densemble.storage.read_windows import Cells, PlainNumbers, Window, WindowSource
from densemble.storage.validity import mask_file, mask_pages


def tiff_windows(path: Path) -> WindowSource | None:
    """Open the image of a TIFF for reading by windows, with the conventions of :func:`tiff.read_page`.

    Returns ``None`` if the image must be decoded whole: its orientation is not 1, it is a volume, or its channels are
    in pages of other files.

    Raises:
        DataError: the file does not exist, is damaged or cut short, or has a colour space other than grey, RGB and
            palette.
    """
    file = tiff_directories.open_file(path)
    source = None
    try:
        with tiff_directories.reading(path):
            source = _window_source(path, file)
    finally:
        if source is None:
            file.close()
    return source


def _window_source(path: Path, file: Any) -> WindowSource | None:
    page = file.pages.first
    tiff.require_known_colours(path, page)
    in_pages = tiff.has_channels_in_pages(file)
    pages = file.series[0].levels[0].pages if in_pages else tiff.image_pages(path, file)
    if page.shaped[1] != 1 or tiff.page_orientation(page) != 1:
        return None
    if (in_pages and not _has_all_pages(file, pages)) or len({_storage_format(channel) for channel in pages}) > 1:
        return None
    require_numbers(path, page.dtype)
    if not math.prod(page.shaped):
        raise DataError(f"'{path}' has no pixels; save it again")
    tiff.require_all_bytes(path, pages)
    size = (page.imagelength, page.imagewidth)
    uncompressed = page.is_final and all(channel.is_contiguous for channel in pages)
    read = _read_uncompressed(path, file, pages) if uncompressed else _cells(path, file, pages).read
    masks = [_cells(path, file, [mask]).read for mask in mask_pages(file)]
    mask_path = mask_file(path)
    mask_source = None if mask_path is None else tiff_windows(mask_path)
    if mask_source is not None:
        masks.append(lambda window: mask_source.read(window).values)

    def read_pixels(window: Window) -> Pixels:
        with tiff_directories.reading(path):
            values = read(window)
            pixels = Pixels(values) if in_pages else tiff.page_pixels(page, values)
            for mask in masks:
                pixels = replace(pixels, valid=intersect_masks(pixels.valid, mask(window)[..., 0] != 0))
            return pixels

    def close() -> None:
        file.close()
        if mask_source is not None:
            mask_source.close()

    return WindowSource(size, read_pixels, close)


def _storage_format(page: Any) -> tuple[Any, ...]:
    """Properties that are equal in pages with the same decoder."""
    key = page.keyframe
    return key.compression, key.predictor, key.tilelength, key.tilewidth, key.rowsperstrip, key.shaped


def _has_all_pages(file: Any, pages: Sequence[Any]) -> bool:
    """Whether this file has one page per channel; ImageJ writes a single page in front of all channels."""
    if any(page is None or page.parent is not file for page in pages):
        return False
    return bool(len(pages) * math.prod(file.pages.first.shaped) == math.prod(file.series[0].levels[0].shape))


def _read_uncompressed(path: Path, file: Any, pages: Sequence[Any]) -> Callable[[Window], Array]:
    """Reader of adjacent uncompressed strips; it reads rows because one strip may hold the whole image."""
    planes, _, height, width, interleaved = pages[0].shaped
    dtype = pages[0].dtype.newbyteorder(file.byteorder)
    column = interleaved * dtype.itemsize
    channel = dtype.itemsize if planes == 1 else height * width * dtype.itemsize
    parts = [
        PlainNumbers(
            path,
            page.dataoffsets[0],
            dtype,
            (height, width, planes * interleaved),
            (width * column, column, channel),
        )
        for page in pages
    ]
    for part in parts:
        part.require_all_bytes()
    return parts[0].read if len(parts) == 1 else lambda window: np.concatenate([p.read(window) for p in parts], axis=2)


def _cells(path: Path, file: Any, pages: Sequence[Any]) -> Cells:
    key = pages[0].keyframe
    planes, _, height, width, interleaved = key.shaped
    cell = (key.tilelength, key.tilewidth) if key.is_tiled else (min(key.rowsperstrip, height), width)
    down, across = math.ceil(height / cell[0]), math.ceil(width / cell[1])
    channels = len(pages) * planes * interleaved
    require_memory(path, 2 * math.prod(cell) * channels * key.dtype.itemsize)
    for page in pages:
        if min(len(page.dataoffsets), len(page.databytecounts)) < planes * down * across:
            raise DataError(f"'{path}' lists {len(page.dataoffsets)} of its {planes * down * across} tiles or strips")

    def decode(row: int, column: int) -> Array:
        inside = (min(cell[0], height - row * cell[0]), min(cell[1], width - column * cell[1]))
        values = np.full((*inside, channels), key.nodata, key.dtype)
        parts = [(page, plane) for page in pages for plane in range(planes)]
        for number, (page, plane) in enumerate(parts):
            segment = _segment(path, file, page, (plane * down + row) * across + column)
            if segment is not None:
                target = values[:, :, number * interleaved : (number + 1) * interleaved]
                target[...] = segment[0, : inside[0], : inside[1]]
        return values

    return Cells(cell, decode)


def _segment(path: Path, file: Any, page: Any, index: int) -> Array | None:
    """Decode a tile or strip, ``(1, h, w, interleaved)``; ``None`` for an empty one that GDAL did not store."""
    offset, count = page.dataoffsets[index], page.databytecounts[index]
    if not offset or not count:
        return None
    file.filehandle.seek(offset)
    encoded = file.filehandle.read(count)  # read first: creating the decoder moves the position of the file
    key = page.keyframe
    tiff_directories.require_segment(path, page, encoded)
    values: Array = key.decode(encoded, index, jpegtables=page.jpegtables, jpegheader=key.jpegheader)[0]
    return values
