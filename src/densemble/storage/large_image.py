"""Read windows of images that are too large for memory, and write large maps by rows."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import UsageError
from densemble.shapes import Array, format_size
from densemble.storage.arrays import NPY_SIGNATURE
from densemble.storage.images import image_size, read_stored
from densemble.storage.large_tiff import tiff_windows
from densemble.storage.map_writer import MapWriter, tiff_writer
from densemble.storage.pixels import (
    Pixels,
    as_shown,
    channels_last,
    decoding,
    filled,
    read_signature,
    require_numbers,
    turned,
)
from densemble.storage.read_windows import PlainNumbers, Window, WindowSource
from densemble.storage.tiff import SIGNATURES
from densemble.storage.zarr_arrays import zarr_windows, zarr_writer

__all__ = [
    "LARGE_PIXELS",
    "LargeImage",
    "MapWriter",
    "is_large",
    "open_large",
    "tiff_writer",
    "zarr_writer",
]

LARGE_PIXELS = 1 << 26  # 8192 x 8192; as float32 RGB it takes 800 MB


class LargeImage:
    """An image that is read by windows, with the conventions of :func:`storage.images.read_image`.

    Memory: one window and the tiles, strips or chunks that it overlaps, which stay decoded for the next window.

    Attributes:
        size: (H, W).
        channels: number of channels after reading; grey gives 3.
        dtype: dtype after reading: uint8, uint16 or float32.
        declares_validity: whether the file marks missing data.
    """

    def __init__(self, path: Path, source: WindowSource, value_range: tuple[float, float] | None = None) -> None:
        """Read the first pixel of the source; closing the image closes the source."""
        self._path = path
        self._source = source
        self._value_range = value_range
        self._lock = threading.Lock()
        self.size = source.size
        self.declares_validity = self._pixels(0, 0, 1, 1).valid is not None
        first = self.read(0, 0, 1, 1)
        self.channels: int = first.shape[2]
        self.dtype: np.dtype[Any] = first.dtype

    def read(self, top: int, left: int, height: int, width: int) -> Array:
        """Read a window as ``(height, width, C)``. Several threads may call it; a lock serializes the reads.

        Pixels without data get the value that :func:`storage.pixels.as_unit` maps to 0.

        Raises:
            UsageError: the window is empty or does not lie inside the image.
            DataError: this part of the file is damaged.
        """
        pixels = self._pixels(top, left, height, width)
        return np.ascontiguousarray(filled(as_shown(pixels), pixels.valid, self._value_range))

    def read_validity(self, top: int, left: int, height: int, width: int) -> Array | None:
        """Mask of valid pixels in a window, bool ``(height, width)``; ``None`` if the file does not mark missing data.

        Raises:
            UsageError, DataError: see :meth:`read`.
        """
        return self._pixels(top, left, height, width).valid if self.declares_validity else None

    def _pixels(self, top: int, left: int, height: int, width: int) -> Pixels:
        if min(top, left) < 0 or min(height, width) < 1 or top + height > self.size[0] or left + width > self.size[1]:
            raise UsageError(
                f"window {format_size((height, width))} at row {top}, column {left} does not lie inside "
                f"'{self._path}' ({format_size(self.size)})"
            )
        with self._lock:
            return self._source.read(Window(top, left, height, width))

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> "LargeImage":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_large(path: Path, value_range: tuple[float, float] | None = None) -> LargeImage:
    """Open an image for reading by windows: TIFF, NPY or Zarr. Other formats are decoded whole.

    Args:
        path: the file, or the folder of a Zarr.
        value_range: value range that is later passed to :func:`storage.pixels.as_unit`.

    Raises:
        DataError: the file does not exist, is damaged or not an image, or is too large to be decoded whole.
        UsageError: the image is a Zarr, and zarr is not installed.
    """
    source = _windows(path)
    try:
        return LargeImage(path, source, value_range)
    except BaseException:
        source.close()
        raise


def is_large(path: Path, limit_pixels: int = LARGE_PIXELS) -> bool:
    """Whether an image has more than ``limit_pixels`` pixels, from its headers alone.

    Raises:
        DataError: the file does not exist or is not an image.
        UsageError: the image is a Zarr, and zarr is not installed.
    """
    if path.is_dir() or _is_npy(path):
        source = _windows(path)
        source.close()
        height, width = source.size
    else:
        height, width = image_size(path)
    return height * width > limit_pixels


def _windows(path: Path) -> WindowSource:
    if path.is_dir():
        return zarr_windows(path)
    if _is_npy(path):
        return _npy_windows(path)
    source = tiff_windows(path) if read_signature(path).startswith(SIGNATURES) else None
    return _whole(path) if source is None else source


def _is_npy(path: Path) -> bool:
    return read_signature(path) == NPY_SIGNATURE


def _npy_windows(path: Path) -> WindowSource:
    with decoding(path, "save it with numpy.save"):
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # reads the header only
    require_numbers(path, stored.dtype)
    image = channels_last(stored, path)
    height, width, channels = image.shape
    rows, columns, samples = image.strides
    numbers = PlainNumbers(path, stored.offset, stored.dtype, (height, width, channels), (rows, columns, samples))
    numbers.require_all_bytes()
    return WindowSource((height, width), lambda window: Pixels(numbers.read(window)), lambda: None)


def _whole(path: Path) -> WindowSource:
    """Decode an image whole, and show the windows that are read: the stored values take the least memory."""
    stored = read_stored(path)
    values, valid = (
        None if part is None else turned(part, stored.orientation) for part in (stored.values, stored.valid)
    )
    assert values is not None

    def read(window: Window) -> Pixels:
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        part = None if valid is None else valid[rows, columns].copy()
        return replace(stored, values=values[rows, columns].copy(), valid=part, alpha=None)

    return WindowSource((values.shape[0], values.shape[1]), read, lambda: None)
