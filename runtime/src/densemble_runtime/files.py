"""Names of output files, and PNG, TIFF and NPY files that are written atomically."""

import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from densemble_runtime.errors import ResourceError
from densemble_runtime.images import Array


def output_names(images: Sequence[object]) -> list[str]:
    """Stem of each file, with folder and suffix added if several files share it; the index of other images."""
    plain = [image.stem if isinstance(image, Path) else str(index) for index, image in enumerate(images)]
    counts = Counter(plain)
    names: list[str] = []
    for image, stem in zip(images, plain, strict=True):
        shared = isinstance(image, Path) and counts[stem] > 1
        first = f"{image.parent.name}_{image.name.replace('.', '_')}" if shared and isinstance(image, Path) else stem
        numbered = chain([first], (f"{first}_{number}" for number in count(2)))
        names.append(next(name for name in numbered if name not in names))
    return names


def write(path: Path, save: Callable[[IO[bytes]], None]) -> Path:
    """Write a file through a temporary file beside it, and return its path.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            save(file)
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def write_npy(path: Path, values: Array) -> Path:
    """Write an array."""
    return write(path, lambda file: np.save(file, values, allow_pickle=False))


def write_png(path: Path, pixels: Array, palette: Array | None = None) -> Path:
    """Write uint8 or uint16 ``(H, W)``, or uint8 ``(H, W, 3)``; ``palette`` ``(N, 3)`` colours uint8 ``(H, W)``."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if palette is not None:
        # With at most 16 colours, Pillow writes pixels of 4 bits or less, which torchvision does not unpack.
        image.putpalette(palette.tobytes().ljust(3 * 256, b"\0"))
    return write(path, lambda file: image.save(file, "PNG"))


def write_tiff(path: Path, planes: Array) -> Path:
    """Write ``(H, W)`` or ``(K, H, W)``, unsigned integers or floats, as a TIFF of K bands; Pillow writes one band."""
    planes = planes[None] if planes.ndim == 2 else planes
    bands, height, width = planes.shape
    little = planes.astype(planes.dtype.newbyteorder("<"))
    strips = [zlib.compress(plane.tobytes()) for plane in little]
    offsets = np.cumsum([8, *map(len, strips)]).tolist()
    short, long = "H", "I"
    tags: list[tuple[int, str, Sequence[int]]] = [
        (256, long, [width]), (257, long, [height]), (258, short, [8 * planes.itemsize] * bands), (259, short, [8]),
        (262, short, [1]), (273, long, offsets[:-1]), (277, short, [bands]), (278, long, [height]),
        (279, long, [len(strip) for strip in strips]), (284, short, [2 if bands > 1 else 1]),
        (338, short, [0] * (bands - 1)), (339, short, [3 if planes.dtype.kind == "f" else 1] * bands),
    ]  # fmt: skip
    tags = [tag for tag in tags if tag[2]]
    start = offsets[-1] + offsets[-1] % 2
    values_at = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for number, kind, numbers in tags:
        packed = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        field = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", values_at + len(values))
        values += packed + b"\0" * (len(packed) % 4) if len(packed) > 4 else b""
        entries += struct.pack("<HHI", number, 3 if kind == short else 4, len(numbers)) + field
    data = struct.pack("<2sHI", b"II", 42, start) + b"".join(strips) + b"\0" * (start - offsets[-1])
    data += struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + values

    def save(file: IO[bytes]) -> None:
        file.write(data)

    return write(path, save)
