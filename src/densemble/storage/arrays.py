"""NPY and NPZ files, read without trusting what their headers claim."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage.pixels import require_numbers, require_plausible

_DEFLATE_AT_BEST = 1032  # bytes out of one byte in: the limit of the format
_ZIP = b"PK\3\4"
_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


def read_array(path: Path, names: tuple[str, ...]) -> Array:
    """The array of an NPY file, or one of an NPZ file: its only one, else the first of ``names`` that is there.

    Raises:
        DataError: absent, damaged, no numbers, or an NPZ of several arrays with none of ``names``.
    """
    with _opened(path, names) as (stream, stored):
        shape, in_columns, dtype = _read_header(path, stream, stored)
        values: Array = np.empty(math.prod(shape), dtype)
        if values.size and stream.readinto(values.view(np.uint8)) != values.nbytes:  # type: ignore[attr-defined]
            raise DataError(f"'{path}' is cut short; copy it again")
        values = values.reshape(shape, order="F" if in_columns else "C")
        return values.astype(dtype.newbyteorder("="), copy=False)


def array_shape(path: Path, names: tuple[str, ...]) -> tuple[int, ...]:
    """The shape that :func:`read_array` would give, from the header alone.

    Raises:
        DataError: as :func:`read_array`.
    """
    with _opened(path, names) as (stream, stored):
        return _read_header(path, stream, stored)[0]


def array_type(path: Path, names: tuple[str, ...]) -> np.dtype[Any]:
    """The type of what :func:`read_array` would give, from the header alone.

    Raises:
        DataError: as :func:`read_array`.
    """
    with _opened(path, names) as (stream, stored):
        return _read_header(path, stream, stored)[2].newbyteorder("=")


@contextmanager
def _opened(path: Path, names: tuple[str, ...]) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes of one NPY, alone or inside an NPZ, with their number."""
    try:
        with path.open("rb") as file:
            zipped = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            if not zipped:
                yield file, path.stat().st_size
                return
            with zipfile.ZipFile(file) as archive:
                member = archive.getinfo(_choose(path, archive.namelist(), names))
                _require_honest(path, member)
                with archive.open(member) as stream:
                    yield stream, member.file_size
    except DataError:
        raise
    except Exception as error:  # a damaged header or zip raises nearly anything: tokenize, struct, zlib, recursion
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read '{path}': {reason}; save it with numpy.save or numpy.savez") from error


def _choose(path: Path, members: list[str], names: tuple[str, ...]) -> str:
    arrays = [member for member in members if member.endswith(".npy")]
    if len(arrays) == 1:
        return arrays[0]
    for name in names:
        if f"{name}.npy" in arrays:
            return f"{name}.npy"
    found = ", ".join(member.removesuffix(".npy") for member in arrays) or "none"
    raise DataError(f"'{path}' holds the arrays {found}; save a single one, or name it {' or '.join(names)}")


def _require_honest(path: Path, member: zipfile.ZipInfo) -> None:
    honest = {
        zipfile.ZIP_STORED: member.file_size == member.compress_size,
        zipfile.ZIP_DEFLATED: member.file_size <= member.compress_size * _DEFLATE_AT_BEST,
    }
    if member.compress_size > path.stat().st_size or not honest.get(member.compress_type, False):
        raise DataError(
            f"'{path}' claims {member.file_size} bytes in {member.compress_size} of its zip; it is damaged or not "
            "written by numpy: save it with numpy.savez_compressed"
        )


def _read_header(path: Path, stream: IO[bytes], stored: int) -> _Header:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"'{path}' is NPY version {version[0]}.{version[1]}; save it again with numpy.save")
    shape, in_columns, dtype = readers[version](stream)
    require_numbers(path, dtype)
    claimed = math.prod(shape) * dtype.itemsize
    require_plausible(path, claimed, stored)
    if min(shape, default=0) < 0 or claimed > stored - stream.tell():
        raise DataError(f"'{path}' claims an array of shape {shape}, more than its {stored} bytes hold; copy it again")
    return shape, in_columns, dtype
