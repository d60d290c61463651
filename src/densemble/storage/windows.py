"""Windows out of stored images: from rows that lie plain in a file, or from cells (tiles, strips, chunks)."""

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
    """A part of an image, in pixels; it lies inside."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class WindowSource:
    """A stored image that gives windows.

    Attributes:
        size: (H, W).
        read: the stored numbers of a window, ``(h, w, C)``, with what they need to become an image.
        close: lets go of the file.
    """

    size: Size
    read: Callable[[Window], Pixels]
    close: Callable[[], None]


class Cells:
    """An image in cells of equal size that are decoded whole; the last row and column may be cut off.

    The cells that the last window touched stay decoded, and no others: neighbours that share a cell decode it once,
    and memory follows the window, not the image.
    """

    def __init__(self, size: Size, cell: Size, decode: Callable[[int, int], Array]) -> None:
        """Args: size (H, W) of the image, of a cell, and cell (row, column) -> ``(h, w, C)`` inside the image."""
        self._size = size
        self._cell = cell
        self._decode = decode
        self._kept: dict[tuple[int, int], Array] = {}

    def read(self, window: Window) -> Array:
        """The numbers of a window, ``(h, w, C)``."""
        height, width = self._cell
        rows = range(window.top // height, math.ceil((window.top + window.height) / height))
        columns = range(window.left // width, math.ceil((window.left + window.width) / width))
        touched = [(row, column) for row in rows for column in columns]
        self._kept = {place: self._kept[place] for place in touched if place in self._kept}  # before more is decoded
        for place in touched:
            if place not in self._kept:
                self._kept[place] = self._decode(*place)
        first = self._kept[touched[0]]
        values = np.empty((window.height, window.width, first.shape[2]), first.dtype)
        for (row, column), cell in self._kept.items():
            top, left = row * height - window.top, column * width - window.left
            inside = cell[max(-top, 0) : window.height - top, max(-left, 0) : window.width - left]
            down, right = max(top, 0), max(left, 0)
            values[down : down + inside.shape[0], right : right + inside.shape[1]] = inside
        return values


@dataclass(frozen=True)
class PlainNumbers:
    """An image whose numbers lie uncompressed in a file, read by positions.

    A memory map would do, but its pages count as this process's memory: up to 64 KiB for each row of a window.

    Attributes:
        path: the file.
        offset: where its first number lies, in bytes.
        dtype: of a number as stored, byte order included.
        shape: (H, W, C).
        strides: bytes from one row, column and channel to the next; in some order the numbers lie without gaps.
    """

    path: Path
    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]

    def require_all_bytes(self) -> None:
        """Refuses a file that ends before its numbers do.

        Raises:
            DataError: it does.
        """
        end = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if end > (stored := self.path.stat().st_size):
            raise DataError(f"'{self.path}' is cut short: {stored} bytes of {end}; copy it again")

    def read(self, window: Window) -> Array:
        """The numbers of a window, ``(h, w, C)`` in this machine's byte order.

        Raises:
            DataError: the file ends before.
        """
        counts = (window.height, window.width, self.shape[2])
        order = sorted(range(3), key=lambda axis: -self.strides[axis])  # as they lie in the file
        lengths, steps = [counts[axis] for axis in order], [self.strides[axis] for axis in order]
        run, scattered = self.dtype.itemsize, 3
        while scattered and (lengths[scattered - 1] == 1 or steps[scattered - 1] == run):  # one read for what adjoins
            scattered -= 1
            run *= lengths[scattered]
        values = np.empty(lengths, self.dtype)
        runs = values.reshape(-1).view(np.uint8).data
        start = self.offset + window.top * self.strides[0] + window.left * self.strides[1]
        with self.path.open("rb", buffering=0) as file:
            for number, index in enumerate(np.ndindex(*lengths[:scattered])):
                file.seek(start + sum(place * step for place, step in zip(index, steps, strict=False)))
                self._fill(file, runs[number * run : (number + 1) * run])
        native = values.astype(self.dtype.newbyteorder("="), copy=False)
        return native.transpose([order.index(axis) for axis in range(3)])

    def _fill(self, file: FileIO, target: memoryview) -> None:
        while target:  # a single read ends near 2 GiB
            count = file.readinto(target)
            if not count:
                raise DataError(f"'{self.path}' is cut short; copy it again")
            target = target[count:]
