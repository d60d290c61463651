"""Reading any file gives an array or a DataError that names it, quickly and with little memory."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from densemble.errors import DataError
from densemble.storage.images import (
    image_size,
    orientation,
    read_colours,
    read_image,
    read_labels,
    read_palette,
    read_planes,
    read_points,
    read_values,
)

READERS = (
    read_image, read_labels, read_colours, read_values, read_planes, read_points, read_palette, image_size, orientation
)  # fmt: skip
NAMES = ("p.png", "p.jpg", "p.webp", "p.bmp", "p.tif", "deflated.tif", "pages.tif", "p.npy", "p.npz")


def sound_file(name: str, folder: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    path = folder / name
    if name == "p.npz":
        np.savez_compressed(path, values)
    elif name == "p.npy":
        np.save(path, values)
    elif name == "pages.tif":
        tifffile.imwrite(path, values.transpose(2, 0, 1), photometric="minisblack")
    elif path.suffix == ".tif":
        tifffile.imwrite(path, values, compression="zlib" if name == "deflated.tif" else None)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_short(name: str, share: float, tmp_path: Path) -> None:
    path = sound_file(name, tmp_path)
    assert read_planes(path).shape == (24, 32, 3)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=path.name):
        read_planes(path)
    if name != "pages.tif":  # whose first page may be whole
        with pytest.raises(DataError, match=path.name):
            read_image(path)


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4), in_header=st.booleans()
)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_an_array_or_a_data_error(
    name: str, damage: list[tuple[float, int]], in_header: bool, tmp_path: Path
) -> None:
    path = sound_file(name, tmp_path)
    content = bytearray(path.read_bytes())
    reach = min(160, len(content)) if in_header else len(content)
    for place, value in damage:
        content[int(place * (reach - 1))] = value
    path.write_bytes(content)
    for read in READERS:
        try:
            read(path)
        except DataError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"nothing", b"II*\0nothing", b"\x93NUMPY", b"PK\3\4", b"\x89PNG\r\n\x1a\n"])
def test_no_image(read: Callable[[Path], object], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    is_array = content in (b"\x93NUMPY", b"PK\3\4")
    for name in (
        ("folder.png", "absent.png") if read is orientation and is_array else ("p.png", "folder.png", "absent.png")
    ):
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)


def tiny_tiff(height: int, width: int, bytes_stored: int) -> bytes:
    """134 bytes that claim a TIFF of 32-bit floats."""
    tags = [(256, width), (257, height), (258, 32), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags += [(279, bytes_stored), (339, 3)]
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def png_bomb(side: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"IDAT" + zlib.compress(bytes(1 << 20))
    end = b"IEND"
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, content, end))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BOMBS = {
    "huge.tif": tiny_tiff(100_000, 100_000, 4 * 10**10 % 2**32),
    "large.tif": tiny_tiff(20_000, 20_000, 16 * 10**8),
    "sparse.tif": tiny_tiff(20_000, 20_000, 0),
    "short.tif": tiny_tiff(1000, 1000, 100),
    "bomb.png": png_bomb(50_000),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.timeout(5)
def test_a_bomb_costs_neither_memory_nor_time(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BOMBS[name])
    for read in (read_image, read_values, read_planes):
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20  # numpy and Pillow's Python side are counted
        finally:
            tracemalloc.stop()
