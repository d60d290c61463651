"""Images and maps too large for memory: windows out of images, maps written by rows."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from densemble.errors import DataError, UsageError
from densemble.shapes import Array, Size, format_size
from densemble.storage.images import image_size, read_image, read_validity
from densemble.storage.large_tiff import tiff_windows
from densemble.storage.map_writer import MapWriter, tiff_writer
from densemble.storage.pixels import Pixels, as_shown, channels_last, filled, require_numbers
from densemble.storage.tiff import SIGNATURES
from densemble.storage.windows import PlainNumbers, Window, WindowSource
from densemble.storage.zarr_arrays import zarr_size, zarr_windows, zarr_writer

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
_MOST_WHOLE_PIXELS = 1 << 28
_NPY = b"\x93NUMPY"


class LargeImage:
    """An image that is read window by window, with the conventions of :func:`storage.images.read_image`.

    Memory: a window and the tiles, strips or chunks that it touches; they stay decoded for the next window.

    Attributes:
        size: (H, W).
        channels: C of what is read; grey gives 3.
        dtype: of what is read: uint8, uint16 or float32.
        declares_validity: whether the file says where it holds data.
    """

    def __init__(self, path: Path, source: WindowSource, value_range: tuple[float, float] | None = None) -> None:
        """The source is closed with the image; its first pixel is read."""
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
        """A window as ``(height, width, C)``. Any thread may call it, one at a time.

        Where there is no data it holds what becomes 0 in :func:`storage.pixels.as_unit`.

        Raises:
            UsageError: the window is empty or does not lie inside the image.
            DataError: the file is damaged there.
        """
        pixels = self._pixels(top, left, height, width)
        return np.ascontiguousarray(filled(as_shown(pixels), pixels.valid, self._value_range))

    def read_validity(self, top: int, left: int, height: int, width: int) -> Array | None:
        """Where a window holds data, bool ``(height, width)``; ``None`` where the file says nothing of it.

        Raises:
            UsageError, DataError: as :meth:`read`.
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
        """Lets go of the file."""
        self._source.close()

    def __enter__(self) -> "LargeImage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_large(path: Path, value_range: tuple[float, float] | None = None) -> LargeImage:
    """Opens an image to be read by windows: TIFF, NPY or Zarr; any other format is decoded whole.

    Args:
        path: the file, or the folder of a Zarr.
        value_range: what :func:`storage.pixels.as_unit` will be given.

    Raises:
        DataError: absent, damaged, no image, or too large for a format that must be decoded whole.
        UsageError: a Zarr, and zarr is not installed.
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
        DataError: absent or no image.
        UsageError: a Zarr, and zarr is not installed.
    """
    height, width = _size(path)
    return height * width > limit_pixels


def _size(path: Path) -> Size:
    if path.is_dir():
        return zarr_size(path)
    return _npy_windows(path).size if _starts_with(path, _NPY) else image_size(path)


def _windows(path: Path) -> WindowSource:
    if path.is_dir():
        return zarr_windows(path)
    if _starts_with(path, _NPY):
        return _npy_windows(path)
    tiled = tiff_windows(path) if _starts_with(path, *SIGNATURES) else None
    return _whole(path) if tiled is None else tiled


def _starts_with(path: Path, *signatures: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(max(map(len, signatures))).startswith(signatures)
    except FileNotFoundError as error:
        raise DataError(f"no file at '{path}'") from error
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from error


def _npy_windows(path: Path) -> WindowSource:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # its header alone
    except Exception as error:  # a damaged header raises nearly anything: tokenize, struct, recursion
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read '{path}': {reason}; save it with numpy.save") from error
    require_numbers(path, stored.dtype)
    image = channels_last(stored, path)
    height, width, channels = image.shape
    rows, columns, samples = image.strides
    numbers = PlainNumbers(path, stored.offset, stored.dtype, (height, width, channels), (rows, columns, samples))
    numbers.require_all_bytes()
    return WindowSource((height, width), lambda window: Pixels(numbers.read(window)), lambda: None)


def _whole(path: Path) -> WindowSource:
    size = image_size(path)
    if size[0] * size[1] > _MOST_WHOLE_PIXELS:
        raise DataError(
            f"'{path}' is {format_size(size)}, too large to be decoded whole; save it upright as tiled TIFF or as Zarr"
        )
    image, valid = read_image(path), read_validity(path)

    def read(window: Window) -> Pixels:
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        return Pixels(image[rows, columns].copy(), valid=None if valid is None else valid[rows, columns].copy())

    return WindowSource(size, read, lambda: None)
