"""The one door to zarr: windows out of Zarr v2 and v3 folders, and maps into them."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from densemble.errors import DataError, ResourceError, UsageError
from densemble.shapes import Array, Size
from densemble.storage.map_writer import TILE, MapWriter
from densemble.storage.pixels import Pixels, channels_last, require_numbers
from densemble.storage.windows import Cells, WindowSource

_MARKS = ("zarr.json", ".zarray", ".zgroup")
_LARGEST_CELL = 1 << 30  # bytes
_MOST_CHANNELS = 64
_CELL = 256  # smaller chunks are read several at a time: each read costs zarr near a millisecond


def is_zarr(path: Path) -> bool:
    """Whether a folder holds a Zarr array or group, v2 or v3."""
    return any((path / mark).is_file() for mark in _MARKS)


def zarr_size(path: Path) -> Size:
    """(H, W) of the image in a Zarr folder, from its headers.

    Raises:
        DataError: as :func:`zarr_windows`.
        UsageError: zarr is not installed.
    """
    with _reading(path):
        array = _image(path)
        height, width = (array.shape[axis] for axis in _axes(array, path)[:2])
        return height, width


def zarr_windows(path: Path) -> WindowSource:
    """Windows out of a Zarr array, or a group with one array, or level 0 of an OME-Zarr.

    The array is ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``; other axes have length 1.

    Raises:
        DataError: absent, damaged, no numbers, several arrays, or other axes.
        UsageError: zarr is not installed.
    """
    with _reading(path):
        array = _image(path)
        require_numbers(path, array.dtype)
        axes = _axes(array, path)
    size = (array.shape[axes[0]], array.shape[axes[1]])
    channels = math.prod(array.shape[axis] for axis in axes[2:])
    cell = tuple(array.chunks[axis] * math.ceil(_CELL / array.chunks[axis]) for axis in axes[:2])
    cell = (min(cell[0], size[0]), min(cell[1], size[1]))
    if (claimed := math.prod(cell) * channels * array.dtype.itemsize) > _LARGEST_CELL:
        raise DataError(f"'{path}' has chunks of {claimed >> 20} MiB; write it again in chunks of {TILE} x {TILE}")

    def decode(row: int, column: int) -> Array:
        place: list[int | slice] = [0] * array.ndim
        place[axes[0]] = slice(row * cell[0], (row + 1) * cell[0])
        place[axes[1]] = slice(column * cell[1], (column + 1) * cell[1])
        for axis in axes[2:]:
            place[axis] = slice(None)
        with _reading(path):
            values = np.asarray(array[tuple(place)])
        kept = sorted(axes)  # what is left of the stored order
        values = values.transpose([kept.index(axis) for axis in axes])
        values = values if values.ndim == 3 else values[:, :, None]
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    cells = Cells(size, cell, decode)
    return WindowSource(size, lambda window: Pixels(cells.read(window)), array.store.close)


@contextmanager
def zarr_writer(path: Path, size: Size, bands: int, dtype: np.dtype[Any]) -> Iterator[MapWriter]:
    """A Zarr v3 array ``(H, W)``, or ``(K, H, W)`` for more than one band, in compressed chunks of 256 x 256.

    Args:
        path: the folder; it appears when the block ends without an exception, and replaces a Zarr of that name.
        size: (H, W) in pixels.
        bands: K.
        dtype: of the map's numbers: integers or floats.

    Raises:
        UsageError: a wrong number of rows, zarr is not installed, or ``path`` is something else than a Zarr.
        ResourceError: the folder cannot be written or the disk is full.
    """
    zarr = _load(path)
    if path.exists() and not is_zarr(path):
        raise UsageError(f"'{path}' exists and is no Zarr; choose another name")
    with _atomic_folder(path) as temporary:
        front = () if bands == 1 else (bands,)
        array: Any = None

        def store(top: int, rows: Array) -> None:
            # One chunk at a time: of several, those still on their way would outlive the failure of one.
            for band, plane in enumerate(rows):
                for left in range(0, size[1], TILE):
                    part = plane[:, left : left + TILE]
                    place = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
                    array[(band, *place) if front else place] = part

        writer = MapWriter(path, size, bands, np.dtype(dtype), store)
        array = zarr.create_array(
            temporary,
            shape=(*front, *size),
            dtype=dtype,
            chunks=(*(1 for _ in front), TILE, TILE),
            dimension_names=(*("band" for _ in front), "y", "x"),
        )
        yield writer
        writer.require_complete()


def _image(path: Path) -> Any:
    zarr = _load(path)
    if not is_zarr(path):
        raise DataError(f"'{path}' is no Zarr: it has none of {', '.join(_MARKS)}; name the folder that has")
    stored = zarr.open(path, mode="r")
    if isinstance(stored, zarr.Array):
        return stored
    attributes = stored.attrs.asdict()
    levels = attributes.get("ome", attributes).get("multiscales")
    if levels:  # OME-Zarr (NGFF) 0.4 and 0.5
        return stored[levels[0]["datasets"][0]["path"]]
    arrays = list(stored.arrays())
    if len(arrays) != 1:
        names = ", ".join(name for name, _ in arrays) or "none"
        raise DataError(f"'{path}' holds the arrays {names}; name the folder of one of them")
    return arrays[0][1]


def _axes(array: Any, path: Path) -> tuple[int, ...]:
    """Which axes of an array are row, column and, where it has one, channel."""
    last = array.ndim - 2
    kept = [axis for axis, length in enumerate(array.shape) if axis >= last or length != 1 or array.ndim <= 3]
    shape = tuple(array.shape[axis] for axis in kept)
    # Strides that number the axes from 1 show what channels_last makes of them; no number is read.
    marked = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, tuple(range(1, len(shape) + 1)))
    ordered = channels_last(marked, path)
    if ordered.shape[2] > _MOST_CHANNELS:
        raise DataError(f"'{path}' has shape {array.shape}, which is no image; wanted (H, W), (H, W, C) or (C, H, W)")
    return tuple(kept[stride - 1] for stride in ordered.strides if stride)


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; on success it takes ``path``'s place, on failure nothing of it stays."""
    temporary, replaced = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        yield temporary
        if path.exists():  # a folder cannot take the place of one that is not empty
            path.replace(replaced)
        temporary.replace(path)
    except OSError as error:
        if replaced.exists() and not path.exists():
            replaced.replace(path)
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (DataError, UsageError):
        raise
    except Exception as error:  # damaged metadata and chunks raise whatever zarr and its codecs think of
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read '{path}': {reason}; the Zarr is damaged: copy it again") from error


def _load(path: Path) -> ModuleType:
    try:
        import zarr
    except ImportError as error:
        raise UsageError(f"'{path}' needs zarr ({error}); install it with pip install \"densemble[zarr]\"") from error
    module: ModuleType = zarr
    return module
