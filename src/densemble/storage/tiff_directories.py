"""Open TIFF files, and check the chain of their pages before tifffile reads it."""

import logging
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from densemble.errors import DataError
from densemble.input_files import open_regular, require_regular
from densemble.storage.embedded_size import embedded_pixels
from densemble.storage.pixels import decoding

_NO_OUTPUT = logging.NullHandler()
MOST_PAGES = 10_000
_MOST_TAG_BYTES = 64 << 20  # the offsets of 8 million tiles
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Codes of compression whose tiles are whole images: JPEG, JPEG 2000, PNG, WebP, JPEG XL, JPEG XR, LERC.
_EMBEDDED = frozenset((6, 7, 22610, 33003, 33004, 33005, 33007, 34712, 34887, 34892, 34927, 34933, 34934))
_EMBEDDED |= {50001, 50002, 52546}
_OME_FILE = re.compile(r"""FileName\s*=\s*["']([^"']*)["']""")


def open_file(path: Path) -> Any:
    """Open a ``tifffile.TiffFile``; the caller closes it and reads from it inside :func:`reading`.

    Raises:
        DataError: the file does not exist or is damaged.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(_NO_OUTPUT)  # what matters becomes a DataError
    with reading(path):
        with open_regular(path) as file:
            _require_sane_directories(path, file)
        file = tifffile.TiffFile(path)
        try:
            _require_same_folder(path, file)
        except BaseException:
            file.close()
            raise
        return file


def _require_sane_directories(path: Path, file: BinaryIO) -> None:
    """Check the number of pages and the size of their tags; what is wrong otherwise is left to tifffile.

    Raises:
        DataError: a loop, too many pages, or a tag that would fill the memory.
    """
    start = file.read(16)
    order = "<" if start.startswith(b"II") else ">"
    is_big = start[2:4] in (b"+\0", b"\0+")
    number, entry, offset_code = ("Q", "HHQ8x", "Q") if is_big else ("H", "HHI4x", "I")
    offset = struct.unpack_from(order + offset_code, start, 8 if is_big else 4)[0]
    end = file.seek(0, os.SEEK_END)
    visited: set[int] = set()
    while offset and offset < end:
        if offset in visited or len(visited) >= MOST_PAGES:
            loop = "its pages form a loop" if offset in visited else f"it has more than {MOST_PAGES} pages"
            raise DataError(f"'{path}' is no image: {loop}; save it again")
        visited.add(offset)
        file.seek(offset)
        count = struct.unpack(order + number, file.read(struct.calcsize(order + number)))[0]
        size = struct.calcsize(order + entry)
        if count * size > end - file.tell():
            return
        for _, kind, length in struct.iter_unpack(order + entry, file.read(count * size)):
            if length * _TYPE_BYTES.get(kind, 0) > _MOST_TAG_BYTES:
                raise DataError(f"'{path}' has a tag of {length} values; it is damaged: copy it again")
        following = file.read(struct.calcsize(order + offset_code))
        offset = struct.unpack(order + offset_code, following)[0]


def _require_same_folder(path: Path, file: Any) -> None:
    """Check that the other files that an OME-TIFF names, which tifffile opens, are regular files beside it.

    Raises:
        DataError: a name has a folder.
        OSError: a file is not regular.
    """
    for name in set(_OME_FILE.findall(file.ome_metadata or "")) if file.is_ome else ():
        if not name or PurePath(name).name != name:
            raise DataError(f"'{path}' names the file '{name}' in another folder; put all files into one folder")
        if path.with_name(name).exists():
            require_regular(path.with_name(name))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of tifffile and its decoders into a DataError."""
    with decoding(path, "the file is damaged or no TIFF: copy it again"):
        try:
            yield
        except Exception as error:
            if "imagecodecs" not in str(error) or isinstance(error, DataError):
                raise
            raise DataError(
                f"cannot read '{path}': {error}; pip install imagecodecs, or save it with deflate"
            ) from error


def require_segment(path: Path, page: Any, encoded: bytes) -> None:
    """Check that an encoded tile or strip is no image of another, larger size.

    Raises:
        DataError: it is.
    """
    key = page.keyframe
    if key.compression not in _EMBEDDED:
        return
    strip = (min(key.rowsperstrip, key.imagelength), key.imagewidth)
    rows, columns = (key.tilelength, key.tilewidth) if key.is_tiled else strip
    if (embedded_pixels(encoded) or 0) > rows * columns:
        raise DataError(f"'{path}' has a tile or strip larger than {rows}x{columns}; it is damaged: copy it again")


def require_segments(path: Path, file: Any, pages: Sequence[Any]) -> None:
    """Check all tiles and strips of pages, see :func:`require_segment`.

    Raises:
        DataError: one of them is an image of another size.
    """
    for page in pages:
        if page.keyframe.compression in _EMBEDDED:
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                file.filehandle.seek(offset)
                require_segment(path, page, file.filehandle.read(count))


def require_all_pages(path: Path, file: Any) -> None:
    """Check that the chain of pages is complete; tifffile only logs a broken chain and drops the other pages."""
    offset_format, count_format = ("Q", "Q") if file.is_bigtiff else ("I", "H")
    entry_size = 20 if file.is_bigtiff else 12
    handle, last = file.filehandle, file.pages[len(file.pages) - 1]
    handle.seek(last.offset)
    (entries,) = struct.unpack(file.byteorder + count_format, handle.read(struct.calcsize(count_format)))
    handle.seek(entries * entry_size, 1)
    (following,) = struct.unpack(file.byteorder + offset_format, handle.read(struct.calcsize(offset_format)))
    if following:
        raise DataError(f"'{path}' is cut short behind page {len(file.pages)}; copy it again")
