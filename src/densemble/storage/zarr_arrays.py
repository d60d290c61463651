"""Read windows of Zarr v2 and v3 folders, and write maps to Zarr; the only module that imports zarr."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from densemble.errors import DataError, UsageError, needs_package
from densemble.input_files import require_regular
from densemble.shapes import Array, Size
from densemble.storage.decoding_memory import image_memory
from densemble.storage.map_writer import TILE, MapWriter
from densemble.storage.pixels import Pixels, channels_last, decoding, require_numbers
from densemble.storage.read_windows import Cells, WindowSource
from densemble.storage.writing import replaced_folder

_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")
_MAX_CHANNELS = 64
_MIN_CELL = 256  # smaller chunks are read together because each read takes zarr about a millisecond


def is_zarr(path: Path) -> bool:
    """Whether a folder holds a Zarr array or group, v2 or v3."""
    return any((path / mark).is_file() for mark in _METADATA_FILES)


def zarr_windows(path: Path) -> WindowSource:
    """Open a Zarr array, a group with one array, or level 0 of an OME-Zarr for reading by windows.

    The array is ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``; other axes have length 1.

    Raises:
        DataError: the Zarr does not exist, is damaged, holds no numbers or several arrays, or has other axes.
        UsageError: zarr is not installed.
    """
    with _reading(path):
        array = _open_array(path)
        require_numbers(path, array.dtype)
        axes = _axes(array, path)
    size = (array.shape[axes[0]], array.shape[axes[1]])
    channels = math.prod(array.shape[axis] for axis in axes[2:])
    cell = tuple(array.chunks[axis] * math.ceil(_MIN_CELL / array.chunks[axis]) for axis in axes[:2])
    cell = (min(cell[0], size[0]), min(cell[1], size[1]))
    if (claimed := 2 * math.prod(cell) * channels * array.dtype.itemsize) > image_memory():
        raise DataError(f"'{path}' has chunks of {claimed >> 21} MiB; write it again in chunks of {TILE} x {TILE}")

    def decode(row: int, column: int) -> Array:
        index: list[int | slice] = [0] * array.ndim
        index[axes[0]] = slice(row * cell[0], (row + 1) * cell[0])
        index[axes[1]] = slice(column * cell[1], (column + 1) * cell[1])
        for axis in axes[2:]:
            index[axis] = slice(None)
        with _reading(path):
            values = np.asarray(array[tuple(index)])
        kept = sorted(axes)  # remaining axes in stored order
        values = values.transpose([kept.index(axis) for axis in axes])
        values = values if values.ndim == 3 else values[:, :, None]
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    cells = Cells(cell, decode)
    return WindowSource(size, lambda window: Pixels(cells.read(window)), array.store.close)


@contextmanager
def zarr_writer(path: Path, size: Size, bands: int, dtype: np.dtype[Any]) -> Iterator[MapWriter]:
    """Write a Zarr v3 array ``(H, W)``, or ``(K, H, W)`` for several bands, in compressed chunks of 256 x 256.

    Args:
        path: output folder; it appears when the block ends without an exception, and replaces an existing Zarr.
        size: (H, W) in pixels.
        bands: number of bands K.
        dtype: integers or floats.

    Raises:
        UsageError: wrong number of rows, zarr is not installed, or ``path`` exists and is not a Zarr.
        ResourceError: the folder cannot be written or the disk is full.
    """
    zarr = _import_zarr(path)
    if path.exists() and not is_zarr(path):
        raise UsageError(f"'{path}' exists and is not a Zarr; choose another name")
    with replaced_folder(path) as temporary:
        leading = () if bands == 1 else (bands,)
        array: Any = None

        def store(top: int, rows: Array) -> None:
            # One chunk at a time: if several were written at once and one failed, the others would continue.
            for band, plane in enumerate(rows):
                for left in range(0, size[1], TILE):
                    part = plane[:, left : left + TILE]
                    index = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
                    array[(band, *index) if leading else index] = part

        writer = MapWriter(path, size, bands, np.dtype(dtype), store)
        array = zarr.create_array(
            temporary,
            shape=(*leading, *size),
            dtype=dtype,
            chunks=(*(1 for _ in leading), TILE, TILE),
            dimension_names=(*("band" for _ in leading), "y", "x"),
        )
        yield writer
        writer.require_complete()


def _open_array(path: Path) -> Any:
    zarr = _import_zarr(path)
    if not is_zarr(path):
        raise DataError(
            f"'{path}' is not a Zarr: it contains none of {', '.join(_METADATA_FILES)}; name the folder that does"
        )
    stored = zarr.open(_regular_store(zarr, path), mode="r")
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


def _regular_store(zarr: ModuleType, path: Path) -> Any:
    """A store of a folder that reads regular files only: a chunk may be a named pipe."""

    class RegularStore(zarr.storage.LocalStore):  # type: ignore[misc, name-defined]
        async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
            if (self.root / key).exists():
                require_regular(self.root / key)
            return await super().get(key, *arguments, **options)

    return RegularStore(path, read_only=True)


def _axes(array: Any, path: Path) -> tuple[int, ...]:
    """Indices of the row, column and, if it exists, channel axis of an array."""
    last = array.ndim - 2
    kept = [axis for axis, length in enumerate(array.shape) if axis >= last or length != 1 or array.ndim <= 3]
    shape = tuple(array.shape[axis] for axis in kept)
    # The strides of this dummy array number the axes from 1, so they show how channels_last reorders the axes.
    dummy = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, tuple(range(1, len(shape) + 1)))
    ordered = channels_last(dummy, path)
    if ordered.shape[2] > _MAX_CHANNELS:
        raise DataError(
            f"'{path}' has shape {array.shape}, which is not an image; expected (H, W), (H, W, C) or (C, H, W)"
        )
    return tuple(kept[stride - 1] for stride in ordered.strides if stride)


def _reading(path: Path) -> AbstractContextManager[None]:
    return decoding(path, "the Zarr is damaged: copy it again")


def _import_zarr(path: Path) -> ModuleType:
    with needs_package("zarr", f"'{path}'", "zarr"):
        import zarr
    module: ModuleType = zarr
    return module
