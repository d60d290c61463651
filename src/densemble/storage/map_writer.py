"""Write maps that do not fit into memory, row by row. The file appears only when it is complete."""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from densemble.errors import UsageError
from densemble.shapes import Array, Size, format_size
from densemble.storage import tiff
from densemble.storage.validity import NODATA_TAG, nodata_text
from densemble.storage.writing import atomic_binary, writing

TILE = 256  # rows and columns
_CLASSIC_BYTES = 15 << 28  # before compression; below the 4 GiB of classic TIFF: incompressible tiles grow slightly
_TEXT, _SHORT, _LONG, _DOUBLE, _LONG8 = 2, 3, 4, 12, 16  # types of TIFF values
_VALUE_FORMATS = {_TEXT: "u1", _SHORT: "<u2", _LONG: "<u4", _DOUBLE: "<f8", _LONG8: "<u8"}
_DEFLATE, _MINISBLACK, _UNSPECIFIED = 8, 1, 0
_CONTIGUOUS, _SEPARATE = 1, 2  # bands interleaved by pixel, or stored separately
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
_GEO_KEYS = 34735


class MapWriter:
    """Collect the rows of a map from top to bottom and store them as rows of tiles.

    Only one row of tiles, with all bands, is kept in memory.
    """

    def __init__(
        self, path: Path, size: Size, bands: int, dtype: np.dtype[Any], store: Callable[[int, Array], None]
    ) -> None:
        """``store`` takes the index of the first row and an array ``(K, n, W)``: n = TILE, or less at the bottom."""
        if min(*size, bands) < 1 or dtype.kind not in "uif":
            raise UsageError(
                f"'{path}' cannot store {bands} bands of size {format_size(size)} and dtype {dtype}; "
                "sizes must be positive and values integers or floats"
            )
        self._path = path
        self._size = size
        self._store = store
        self._tiles = np.empty((bands, min(TILE, size[0]), size[1]), dtype)
        self._stored = 0  # number of stored rows
        self._buffered = 0  # number of rows in self._tiles

    def write(self, rows: Array) -> None:
        """Write the next rows at full width.

        Args:
            rows: ``(K, n, W)``, or ``(n, W)`` for one band, in the dtype of the writer.

        Raises:
            UsageError: wrong shape or dtype, or more rows than the map has.
            ResourceError: the folder cannot be written or the disk is full.
        """
        rows = rows[None] if rows.ndim == 2 else rows
        self._require_shape(rows)
        with writing(self._path):
            while rows.shape[1]:
                count = min(self._tiles.shape[1] - self._buffered, rows.shape[1])
                self._tiles[:, self._buffered : self._buffered + count] = rows[:, :count]
                self._buffered += count
                rows = rows[:, count:]
                if self._buffered == self._tiles.shape[1] or self._stored + self._buffered == self._size[0]:
                    self._store(self._stored, self._tiles[:, : self._buffered])
                    self._stored, self._buffered = self._stored + self._buffered, 0

    def require_complete(self) -> None:
        """Check that all rows were written.

        Raises:
            UsageError: rows are missing.
        """
        if self._stored < self._size[0]:
            raise UsageError(
                f"'{self._path}' got {self._stored + self._buffered} of {self._size[0]} rows; write all rows"
            )

    def _require_shape(self, rows: Array) -> None:
        bands, _, width = self._tiles.shape
        if rows.ndim != 3 or rows.shape[0] != bands or rows.shape[2] != width or rows.dtype != self._tiles.dtype:
            raise UsageError(
                f"'{self._path}' takes rows of dtype {self._tiles.dtype} and shape ({bands}, n, {width}), "
                f"not of dtype {rows.dtype} and shape {rows.shape}"
            )
        if (count := self._stored + self._buffered + rows.shape[1]) > self._size[0]:
            raise UsageError(f"'{self._path}' has {self._size[0]} rows, but {count} were written")


@contextmanager
def tiff_writer(
    path: Path,
    size: Size,
    bands: int,
    dtype: np.dtype[Any],
    georeference_from: Path | None = None,
    nodata: float | None = None,
) -> Iterator[MapWriter]:
    """Write a tiled TIFF with deflate compression; BigTIFF if it could exceed 4 GB.

    Args:
        path: output file; it appears when the block ends without an exception.
        size: (H, W) in pixels.
        bands: number of bands K.
        dtype: integers or floats of 8 to 64 bits.
        georeference_from: image of the same size; if it is a GeoTIFF, the map gets its georeference.
        nodata: value that marks pixels without data.

    Raises:
        UsageError: the number of rows is wrong, or ``georeference_from`` has a different size.
        DataError: ``georeference_from`` does not exist or is damaged.
        ResourceError: the folder cannot be written or the disk is full.
    """
    tags = {} if georeference_from is None else _georeference(georeference_from, size)
    if nodata is not None:
        tags[NODATA_TAG] = nodata_text(nodata)
    with atomic_binary(path) as file:
        tiles = _TiffTiles(file, size, bands, np.dtype(dtype))
        writer = MapWriter(path, size, bands, np.dtype(dtype), tiles.store)
        yield writer
        writer.require_complete()
        tiles.finish(tags)


def _georeference(image: Path, size: Size) -> dict[int, Any]:
    if image.is_dir() or not tiff.is_geotiff(image):
        return {}
    if (image_size := tiff.page_header(image)[0]) != size:
        raise UsageError(
            f"'{image}' has size {format_size(image_size)}, but its map has size {format_size(size)}; "
            "both sizes must be equal"
        )
    return tiff.geotiff_tags(image)


class _TiffTiles:
    """TIFF file to which tiles are appended; the directory is written at the end.

    The writer of tifffile is not suitable: it takes the tiles from an iterator, all tiles of one band before those of
    the next band, while here a row of tiles arrives for all bands together.
    """

    def __init__(self, file: BinaryIO, size: Size, bands: int, dtype: np.dtype[Any]) -> None:
        self._file = file
        self._size = size
        self._bands = bands
        self._dtype = dtype.newbyteorder("<")
        tiles = (bands, math.ceil(size[0] / TILE), math.ceil(size[1] / TILE))
        self._big = math.prod(tiles) * TILE * TILE * dtype.itemsize > _CLASSIC_BYTES
        self._offsets = np.zeros(tiles, np.uint64)
        self._counts = np.zeros(tiles, np.uint64)
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self._big else struct.pack("<2sHI", b"II", 42, 0))

    def store(self, top: int, rows: Array) -> None:
        """Append a row of tiles ``(K, n, W)`` that starts at row ``top``; tiles are padded with 0."""
        for band, plane in enumerate(rows):
            for column in range(self._offsets.shape[2]):
                part = plane[:, column * TILE : (column + 1) * TILE]
                tile = np.zeros((TILE, TILE), self._dtype)
                tile[: part.shape[0], : part.shape[1]] = part
                encoded = tiff.encode_tile(tile)
                index = (band, top // TILE, column)
                self._offsets[index], self._counts[index] = self._file.tell(), len(encoded)
                self._file.write(encoded)

    def finish(self, tags: dict[int, Any]) -> None:
        """Write the directory, and store its offset in the header."""
        entries = sorted([*self._image_entries(), *(_extra_entry(*tag) for tag in tags.items())])
        offset_format, count_format = ("<Q", "<Q") if self._big else ("<I", "<H")
        offset_size = struct.calcsize(offset_format)
        directory = struct.pack(count_format, len(entries))
        for code, value_type, values in entries:
            stored = np.asarray(values, _VALUE_FORMATS[value_type]).tobytes()
            if len(stored) > offset_size:
                stored = struct.pack(offset_format, self._append(stored))
            directory += struct.pack("<HH" + offset_format[1], code, value_type, len(values))
            directory += stored.ljust(offset_size, b"\0")
        directory_offset = self._append(directory + struct.pack(offset_format, 0))
        self._file.seek(offset_size)  # the header ends with the offset of the directory
        self._file.write(struct.pack(offset_format, directory_offset))

    def _image_entries(self) -> list[tuple[int, int, list[int]]]:
        bands, offset = self._bands, _LONG8 if self._big else _LONG
        bits, sample_format = self._dtype.itemsize * 8, _SAMPLE_FORMATS[self._dtype.kind]
        return [
            (256, _LONG, [self._size[1]]),
            (257, _LONG, [self._size[0]]),
            (258, _SHORT, [bits] * bands),
            (259, _SHORT, [_DEFLATE]),
            (262, _SHORT, [_MINISBLACK]),
            (277, _SHORT, [bands]),
            (284, _SHORT, [_CONTIGUOUS if bands == 1 else _SEPARATE]),
            (317, _SHORT, [tiff.predictor_of(self._dtype)]),
            (322, _SHORT, [TILE]),
            (323, _SHORT, [TILE]),
            (324, offset, self._offsets.ravel().tolist()),
            (325, offset, self._counts.ravel().tolist()),
            *([] if bands == 1 else [(338, _SHORT, [_UNSPECIFIED] * (bands - 1))]),
            (339, _SHORT, [sample_format] * bands),
        ]

    def _append(self, content: bytes) -> int:
        offset = self._file.seek(0, 2)
        offset += self._file.write(b"\0" * (offset % 2))  # TIFF requires even offsets
        self._file.write(content)
        return offset


def _extra_entry(code: int, value: Any) -> tuple[int, int, Any]:
    if isinstance(value, str):
        return code, _TEXT, list(value.encode() + b"\0")
    return code, _SHORT if code == _GEO_KEYS else _DOUBLE, list(value)
