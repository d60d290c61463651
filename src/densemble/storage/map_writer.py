"""Maps too large for memory, written by rows as they come; on disk as a whole or not at all."""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from densemble.errors import ResourceError, UsageError
from densemble.shapes import Array, Size, format_size
from densemble.storage import tiff
from densemble.storage.runs import atomic_path
from densemble.storage.validity import NODATA_TAG, nodata_text

TILE = 256  # rows and columns
_CLASSIC_BYTES = 15 << 28  # offsets of classic TIFF have 32 bits; tiles that do not compress grow a little
_TEXT, _SHORT, _LONG, _DOUBLE, _LONG8 = 2, 3, 4, 12, 16  # types of TIFF values
_VALUE_FORMATS = {_TEXT: "u1", _SHORT: "<u2", _LONG: "<u4", _DOUBLE: "<f8", _LONG8: "<u8"}
_DEFLATE, _MINISBLACK, _UNSPECIFIED = 8, 1, 0
_CONTIGUOUS, _SEPARATE = 1, 2  # samples of a pixel side by side, or each band for itself
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
_GEO_KEYS = 34735


class MapWriter:
    """Takes the rows of a map from top to bottom, and stores them by rows of tiles.

    Memory: one row of tiles, all bands.
    """

    def __init__(
        self, path: Path, size: Size, bands: int, dtype: np.dtype[Any], store: Callable[[int, Array], None]
    ) -> None:
        """Args: ``store`` takes the first row's number and ``(K, n, W)``: n = TILE, less at the bottom."""
        if min(*size, bands) < 1 or dtype.kind not in "uif":
            raise UsageError(f"'{path}' cannot hold {bands} bands of {dtype} {format_size(size)}; give numbers")
        self._path = path
        self._size = size
        self._store = store
        self._tiles = np.empty((bands, min(TILE, size[0]), size[1]), dtype)
        self._stored = 0  # rows
        self._waiting = 0  # rows, in self._tiles

    def write(self, rows: Array) -> None:
        """The next rows, full width: ``(K, n, W)``, or ``(n, W)`` where there is one band; in the writer's dtype.

        Raises:
            UsageError: another shape or dtype, or more rows than the map has.
            ResourceError: the folder cannot be written or the disk is full.
        """
        rows = rows[None] if rows.ndim == 2 else rows
        self._require_fitting(rows)
        try:
            while rows.shape[1]:
                taken = min(self._tiles.shape[1] - self._waiting, rows.shape[1])
                self._tiles[:, self._waiting : self._waiting + taken] = rows[:, :taken]
                self._waiting += taken
                rows = rows[:, taken:]
                if self._waiting == self._tiles.shape[1] or self._stored + self._waiting == self._size[0]:
                    self._store(self._stored, self._tiles[:, : self._waiting])
                    self._stored, self._waiting = self._stored + self._waiting, 0
        except OSError as error:
            raise ResourceError(
                f"cannot write '{self._path}': {error.strerror or error}; choose another folder"
            ) from error

    def require_complete(self) -> None:
        """Refuses a map that has not got all its rows.

        Raises:
            UsageError: rows are missing.
        """
        if self._stored < self._size[0]:
            raise UsageError(
                f"'{self._path}' got {self._stored + self._waiting} of {self._size[0]} rows; write them all"
            )

    def _require_fitting(self, rows: Array) -> None:
        bands, _, width = self._tiles.shape
        if rows.ndim != 3 or rows.shape[0] != bands or rows.shape[2] != width or rows.dtype != self._tiles.dtype:
            raise UsageError(
                f"'{self._path}' takes rows {self._tiles.dtype} ({bands}, n, {width}), not {rows.dtype} {rows.shape}"
            )
        if (count := self._stored + self._waiting + rows.shape[1]) > self._size[0]:
            raise UsageError(f"'{self._path}' has {self._size[0]} rows; {count} were written")


@contextmanager
def tiff_writer(
    path: Path,
    size: Size,
    bands: int,
    dtype: np.dtype[Any],
    georeference_from: Path | None = None,
    nodata: float | None = None,
) -> Iterator[MapWriter]:
    """A TIFF of ``size`` (H, W) with K bands, tiled, compressed by deflate; BigTIFF where it could exceed 4 GB.

    Args:
        path: the file; it appears when the block ends without an exception.
        size: (H, W) in pixels.
        bands: K.
        dtype: of the map's numbers: integers or floats of 8 to 64 bits.
        georeference_from: an image of the same size; if it is a GeoTIFF, the map lies where it lies.
        nodata: the number that stands for no data in the map.

    Raises:
        UsageError: a wrong number of rows, or a georeference of another size.
        DataError: the image of the georeference is absent or damaged.
        ResourceError: the folder cannot be written or the disk is full.
    """
    tags = {} if georeference_from is None else _georeference(georeference_from, size)
    if nodata is not None:
        tags[NODATA_TAG] = nodata_text(nodata)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        tiles = _TiffTiles(file, size, bands, np.dtype(dtype))
        writer = MapWriter(path, size, bands, np.dtype(dtype), tiles.store)
        yield writer
        writer.require_complete()
        tiles.finish(tags)


def _georeference(image: Path, size: Size) -> dict[int, Any]:
    if image.is_dir() or not tiff.is_geotiff(image):
        return {}
    if (found := tiff.page_header(image)[0]) != size:
        raise UsageError(f"'{image}' is {format_size(found)}, its map {format_size(size)}; they must be equal")
    return tiff.geotiff_tags(image)


class _TiffTiles:
    """A TIFF whose tiles are appended as they come, and whose directory is written last.

    tifffile's own writer pulls its data, and wants all tiles of a band before the next band's.
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
        """Appends a row of tiles ``(K, n, W)`` whose first row is ``top``; beyond the map's edges they hold 0."""
        for band, plane in enumerate(rows):
            for column in range(self._offsets.shape[2]):
                part = plane[:, column * TILE : (column + 1) * TILE]
                tile = np.zeros((TILE, TILE), self._dtype)
                tile[: part.shape[0], : part.shape[1]] = part
                encoded = tiff.encode_tile(tile)
                place = (band, top // TILE, column)
                self._offsets[place], self._counts[place] = self._file.tell(), len(encoded)
                self._file.write(encoded)

    def finish(self, tags: dict[int, Any]) -> None:
        """Writes the directory, and its place into the header."""
        entries = sorted([*self._own_entries(), *(_geo_entry(*tag) for tag in tags.items())])
        word, count = ("<Q", "<Q") if self._big else ("<I", "<H")
        room = struct.calcsize(word)
        directory = struct.pack(count, len(entries))
        for code, kind, values in entries:
            stored = np.asarray(values, _VALUE_FORMATS[kind]).tobytes()
            directory += struct.pack("<HH" + word[1], code, kind, len(values))
            directory += stored.ljust(room, b"\0") if len(stored) <= room else struct.pack(word, self._append(stored))
        place = self._append(directory + struct.pack(word, 0))
        self._file.seek(room)  # the header's last word
        self._file.write(struct.pack(word, place))

    def _own_entries(self) -> list[tuple[int, int, list[int]]]:
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
        place = self._file.seek(0, 2)
        place += self._file.write(b"\0" * (place % 2))  # what a directory points to starts at even bytes
        self._file.write(content)
        return place


def _geo_entry(code: int, value: Any) -> tuple[int, int, Any]:
    if isinstance(value, str):
        return code, _TEXT, list(value.encode() + b"\0")
    return code, _SHORT if code == _GEO_KEYS else _DOUBLE, list(value)
