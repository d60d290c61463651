"""Read NPY and NPZ files without trusting their headers, and write NPY files, whole or through a memory map."""

import math
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike

from densemble.errors import DataError
from densemble.input_files import open_regular
from densemble.shapes import Array
from densemble.storage.decoding_memory import After, decoding_memory
from densemble.storage.pixels import decoding, require_numbers
from densemble.storage.writing import atomic_binary, reserve, writing

_MAX_DEFLATE_RATIO = 1032  # limit of the format
NPY_SIGNATURE = b"\x93NUMPY"
ZIP_SIGNATURE = b"PK\3\4"
_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


def read_array(path: Path, names: tuple[str, ...], after: After = lambda channels, itemsize: 0) -> Array:
    """Read an NPY file, or one array of an NPZ file: the only one, else the first of ``names`` that exists.

    Raises:
        DataError: the file does not exist, is damaged, holds no numbers, or holds several arrays but none of ``names``.
    """
    with _opened(path, names) as (stream, stored):
        shape, fortran_order, dtype = _read_header(path, stream, stored)
        with decoding_memory(path, _needed_bytes(shape, dtype, after)):
            values: Array = np.empty(math.prod(shape), dtype)
            if values.size and stream.readinto(values.view(np.uint8)) != values.nbytes:  # type: ignore[attr-defined]
                raise DataError(f"'{path}' is cut short; copy it again")
            values = values.reshape(shape, order="F" if fortran_order else "C")
            return values.astype(dtype.newbyteorder("="), copy=False)


def _needed_bytes(shape: tuple[int, ...], dtype: np.dtype[Any], after: After) -> int:
    pixels = math.prod(sorted(shape)[-2:])  # the smallest axis of three is the channel
    channels = math.prod(shape) // max(pixels, 1)
    stored = math.prod(shape) * dtype.itemsize
    return stored + max(0 if dtype.isnative else stored, pixels * after(channels, dtype.itemsize))


def array_header(path: Path, names: tuple[str, ...]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that :func:`read_array` would give, from the header alone.

    Raises:
        DataError: see :func:`read_array`.
    """
    with _opened(path, names) as (stream, stored):
        shape, _, dtype = _read_header(path, stream, stored)
        return shape, dtype.newbyteorder("=")


def write_npy(path: Path, values: Array) -> None:
    """Write an array as NPY atomically.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    with atomic_binary(path, values.nbytes) as file:
        np.save(file, values, allow_pickle=False)


def create_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    """Create an NPY file of zeros and map it for writing.

    All its blocks are allocated first: writing to a map of a sparse file on a full disk kills the process.

    Args:
        path: file that does not exist yet, in a folder that becomes visible when it is complete.
        dtype, shape: of the array.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    kind = np.dtype(dtype)
    needed = math.prod(shape) * kind.itemsize
    with writing(path, "free some space, or choose another folder", needed), path.open("xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        reserve(file, file.tell() + needed)
    return np.lib.format.open_memmap(path, "r+")


def temporary_array(folder: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    """Map a file of zeros that has no name and needs disk space in ``folder`` while the array is in use.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    remedy = "free some space, or choose another folder"
    with writing(folder, remedy, needed), tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, needed)
        return np.memmap(file, dtype, "r+", shape=shape)


@contextmanager
def _opened(path: Path, names: tuple[str, ...]) -> Iterator[tuple[IO[bytes], int]]:
    """Open one NPY file, alone or inside an NPZ; yields the stream and its number of bytes."""
    with decoding(path, "save it with numpy.save or numpy.savez"), open_regular(path) as file:
        zipped = file.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE
        file.seek(0)
        if not zipped:
            yield file, path.stat().st_size
            return
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo(_select_member(path, archive.namelist(), names))
            _require_plausible_ratio(path, member)
            with archive.open(member) as stream:
                yield stream, member.file_size


def _select_member(path: Path, members: list[str], names: tuple[str, ...]) -> str:
    arrays = [member for member in members if member.endswith(".npy")]
    if len(arrays) == 1:
        return arrays[0]
    for name in names:
        if f"{name}.npy" in arrays:
            return f"{name}.npy"
    listed = ", ".join(member.removesuffix(".npy") for member in arrays) or "none"
    raise DataError(f"'{path}' holds the arrays {listed}; save a single one, or name it {' or '.join(names)}")


def _require_plausible_ratio(path: Path, member: zipfile.ZipInfo) -> None:
    plausible = {
        zipfile.ZIP_STORED: member.file_size == member.compress_size,
        zipfile.ZIP_DEFLATED: member.file_size <= member.compress_size * _MAX_DEFLATE_RATIO,
    }
    if member.compress_size > path.stat().st_size or not plausible.get(member.compress_type, False):
        raise DataError(
            f"'{path}' claims {member.file_size} bytes in {member.compress_size} of its zip; it is damaged or not "
            "written by numpy: save it with numpy.savez_compressed"
        )


def _read_header(path: Path, stream: IO[bytes], stored: int) -> _Header:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"'{path}' is NPY version {version[0]}.{version[1]}; save it again with numpy.save")
    shape, fortran_order, dtype = readers[version](stream)
    require_numbers(path, dtype)
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed > stored - stream.tell():
        raise DataError(f"'{path}' claims an array of shape {shape}, more than its {stored} bytes hold; copy it again")
    return shape, fortran_order, dtype
