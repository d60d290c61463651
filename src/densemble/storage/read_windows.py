"""Read windows of stored images, either from uncompressed rows or from cells (tiles, strips, chunks)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from densemble.errors import DataError
from densemble.shapes import Array, Size
from densemble.storage.pixels import Pixels


@dataclass(frozen=True)
class Window:
    """A part of an image, in pixels; it lies completely inside the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class WindowSource:
    """A stored image that is read by windows.

    Attributes:
        size: (H, W).
        read: reads the stored values of a window, ``(h, w, C)``.
        close: closes the file.
    """

    size: Size
    read: Callable[[Window], Pixels]
    close: Callable[[], None]


class Cells:
    """An image of equally large cells; the cells of the last row and column may be smaller.

    Only the cells of the last window stay decoded. Neighbouring windows decode a shared cell once, and memory depends
    on the size of the window, not of the image.
    """

    def __init__(self, cell: Size, decode: Callable[[int, int], Array]) -> None:
        """``cell``: (H, W). ``decode``: (row, column) of a cell -> its part inside the image, ``(h, w, C)``."""
        self._cell = cell
        self._decode = decode
        self._cached: dict[tuple[int, int], Array] = {}

    def read(self, window: Window) -> Array:
        """Read the values of a window, ``(h, w, C)``."""
        height, width = self._cell
        rows = range(window.top // height, math.ceil((window.top + window.height) / height))
        columns = range(window.left // width, math.ceil((window.left + window.width) / width))
        indices = [(row, column) for row in rows for column in columns]
        # Free the other cells before more are decoded.
        self._cached = {index: self._cached[index] for index in indices if index in self._cached}
        for index in indices:
            if index not in self._cached:
                self._cached[index] = self._decode(*index)
        first = self._cached[indices[0]]
        values = np.empty((window.height, window.width, first.shape[2]), first.dtype)
        for (row, column), cell in self._cached.items():
            top, left = row * height - window.top, column * width - window.left
            inside = cell[max(-top, 0) : window.height - top, max(-left, 0) : window.width - left]
            down, right = max(top, 0), max(left, 0)
            values[down : down + inside.shape[0], right : right + inside.shape[1]] = inside
        return values


@dataclass(frozen=True)
class PlainNumbers:
    """An image whose values are stored uncompressed in a file.

    A memory map is not used because its pages count as memory of this process: up to 64 KiB per row of a window.

    Attributes:
        path: the file.
        offset: position of the first value in bytes.
        dtype: stored dtype, including the byte order.
        shape: (H, W, C).
        strides: bytes from one row, column and channel to the next; the values have no gaps in some axis order.
    """

    path: Path
    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]

    def require_all_bytes(self) -> None:
        """Check that the file contains all values.

        Raises:
            DataError: the file is cut short.
        """
        end = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if end > (stored := self.path.stat().st_size):
            raise DataError(f"'{self.path}' is cut short: {stored} bytes of {end}; copy it again")

    def read(self, window: Window) -> Array:
        """Read the values of a window, ``(h, w, C)`` in native byte order.

        Raises:
            DataError: the file is cut short.
        """
        counts = (window.height, window.width, self.shape[2])
        order = sorted(range(3), key=lambda axis: -self.strides[axis])  # order of the axes in the file
        lengths, steps = [counts[axis] for axis in order], [self.strides[axis] for axis in order]
        run, outer = self.dtype.itemsize, 3
        while outer and (lengths[outer - 1] == 1 or steps[outer - 1] == run):  # read adjacent bytes at once
            outer -= 1
            run *= lengths[outer]
        values = np.empty(lengths, self.dtype)
        buffer = values.reshape(-1).view(np.uint8).data
        start = self.offset + window.top * self.strides[0] + window.left * self.strides[1]
        with self.path.open("rb", buffering=0) as file:
            for number, index in enumerate(np.ndindex(*lengths[:outer])):
                file.seek(start + sum(i * step for i, step in zip(index, steps, strict=False)))
                self._fill(file, buffer[number * run : (number + 1) * run])
        native = values.astype(self.dtype.newbyteorder("="), copy=False)
        return native.transpose([order.index(axis) for axis in range(3)])

    def _fill(self, file: FileIO, target: memoryview) -> None:
        while target:  # one read returns at most about 2 GiB
            count = file.readinto(target)
            if not count:
                raise DataError(f"'{self.path}' is cut short; copy it again")
            target = target[count:]
