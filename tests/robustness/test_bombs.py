"""Small files that describe huge images cost neither memory nor time, one at a time and in threads."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from robustness.small_runs import Undisturbed

_MOST_BYTES = 1_000_000_000
_SECONDS = 20.0

# Prints the peak of resident memory in bytes, without what all imports of the helper take but with those of a command
# (400 MB), and the duration of each reader of a file.
_READ = """
import sys, time
from pathlib import Path
from densemble.data.read_pairs import is_point_table
from densemble.errors import DensembleError
from densemble.storage import images, large_image
from densemble.storage.points import read_point_table

def memory(name="VmHWM"):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

def windows(path):
    with large_image.open_large(path) as image:
        return image.read(0, 0, 1, 1)

def points(path):
    return read_point_table(path) if is_point_table(path) else None

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS") - 400_000_000
path = Path({path!r})
readers = (
    images.image_size, images.number_type, images.orientation, large_image.is_large, windows, images.read_validity,
    images.read_image, images.read_labels, images.read_colours, images.read_values, images.read_planes,
    images.read_palette, points,
)
for read in readers:
    started = time.monotonic()
    try:
        read(path)
    except DensembleError:
        pass
    print(read.__name__, memory() - before, time.monotonic() - started)
"""


def _png(width: int, height: int, depth: int = 8, colour: int = 2, chunks: tuple[bytes, ...] = ()) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (header, *chunks, b"IDAT" + zlib.compress(bytes(1 << 20)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
    )


def _zeros(mebibytes: int) -> bytes:
    """A zlib stream of zeros, quickly: the same compressed block again and again."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (mebibytes - 1) + b"\x03\x00" + bytes(4)


def _encoded(kind: str, mode: str, sides: bytes, **options: Any) -> bytes:
    """A small JPEG or BMP whose header claims other sides."""
    stream = io.BytesIO()
    Image.new(mode, (16, 16)).save(stream, kind, **options)
    content = stream.getvalue()
    if kind == "BMP":
        return content[:18] + sides + content[26:]
    start = next(content.find(code) for code in (b"\xff\xc2", b"\xff\xc0") if code in content)
    return content[: start + 5] + sides + content[start + 9 :]


def _webp() -> bytes:
    """A lossless WebP of 34 bytes: 13,000 x 13,000 pixels of one colour, of no bits each."""
    bits = (13_000 - 1) | (13_000 - 1) << 14  # no alpha, version 0, no transform, no colour cache, no groups of codes
    for number in range(5):  # five simple codes of one symbol
        bits |= 1 << 35 + 4 * number
    body = b"\x2f" + bits.to_bytes(13, "little")
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def _gif() -> bytes:
    stream = io.BytesIO()
    Image.new("P", (8, 8)).save(stream, "GIF")
    content = bytearray(stream.getvalue())
    content[6:10] = struct.pack("<HH", 65_535, 65_535)
    return bytes(content)


def _tiff(samples: int, **tags: int) -> bytes:
    """A TIFF of one strip with any numbers in its tags."""
    stream = io.BytesIO()
    shape = (16, 16, samples) if samples > 1 else (16, 16)
    tifffile.imwrite(stream, np.zeros(shape, np.uint8), compression="zstd", metadata=None)
    stream.seek(0)
    with tifffile.TiffFile(stream, mode="r+b") as file:
        for name, value in tags.items():
            file.pages.first.tags[name].overwrite(value)
    return stream.getvalue()


def _zstd_tiff() -> bytes:
    content = _tiff(3, ImageWidth=20_000, ImageLength=20_000, RowsPerStrip=20_000)
    return content + bytes(36_000)


def _embedded_tiff() -> bytes:
    """A tile that is a WebP of 13,000 x 13,000 pixels, in a TIFF of 16 x 16."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((16, 16, 3), np.uint8), compression="webp", tile=(16, 16), metadata=None)
    content = _webp()
    stream.seek(0)
    with tifffile.TiffFile(stream, mode="r+b") as file:
        file.pages.first.tags["TileByteCounts"].overwrite(len(content))
        file.pages.first.tags["TileOffsets"].overwrite(stream.seek(0, os.SEEK_END))
    return stream.getvalue() + content


def _pages(count: int, loop: bool = False) -> bytes:
    """A TIFF of many pages, or of two that form a loop."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    page = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    size = len(page) + 4
    links = [8 + (number + 1) * size for number in range(count - 1)] + [8 if loop else 0]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(page + struct.pack("<I", link) for link in links)


def _npy(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _npz(mebibytes: int) -> bytes:
    """An NPZ whose array is really that large when it is decompressed."""
    header = _npy((1024 * mebibytes, 1024))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    data += block * mebibytes + b"\x03\x00"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", header)
    local = stream.getvalue()[:30]
    sizes = struct.pack("<II", len(data), len(header) + (mebibytes << 20))
    central = b"PK\1\2\x14\0" + local[4:14] + bytes(4) + sizes + struct.pack("<HHHHHII", 9, 0, 0, 0, 0, 0, 0)
    body = local[:14] + bytes(4) + sizes + local[26:30] + b"arr_0.npy" + data
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central) + 9, len(body), 0)
    return body + central + b"arr_0.npy" + end


def _scans() -> bytes:
    """A progressive JPEG of 3,000 scans."""
    stream = io.BytesIO()
    Image.new("L", (16, 16)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    start, end = content.rfind(b"\xff\xda"), content.rfind(b"\xff\xd9")
    return content[:start] + content[start:end] * 3_000 + content[end:]


_BIG = struct.pack(">HH", 13_000, 13_000)
BOMBS: dict[str, Callable[[], bytes]] = {
    "webp of 34 bytes.webp": _webp,
    "baseline.jpg": lambda: _encoded("JPEG", "RGB", _BIG),
    "progressive.jpg": lambda: _encoded("JPEG", "RGB", _BIG, progressive=True),
    "cmyk.jpg": lambda: _encoded("JPEG", "CMYK", _BIG),
    "largest.jpg": lambda: _encoded("JPEG", "L", b"\xff\xdc" * 2),
    "scans.jpg": _scans,
    "zstd.tif": _zstd_tiff,
    "embedded.tif": _embedded_tiff,
    "loop.tif": lambda: _pages(2, loop=True),
    "million pages.tif": lambda: _pages(1_000_000),
    "sparse tiles.tif": lambda: _tiff(1, ImageWidth=100_000, ImageLength=100_000),
    "colours.png": lambda: _png(13_000, 13_000),
    "sixteen bits.png": lambda: _png(10_000, 10_000, depth=16, colour=6),
    "grey.png": lambda: _png(30_000, 30_000, colour=0),
    "largest.png": lambda: _png(2**31 - 1, 2**31 - 1, depth=1, colour=0),
    "text.png": lambda: _png(16, 16, chunks=(b"zTXtkey\0\0" + _zeros(2_000),)),
    "profile.png": lambda: _png(16, 16, chunks=(b"iCCPname\0\0" + _zeros(2_000),)),
    "international text.png": lambda: _png(16, 16, chunks=(b"iTXtkey\0\1\0\0\0" + _zeros(2_000),)),
    "many texts.png": lambda: _png(16, 16, chunks=(b"zTXtkey\0\0" + zlib.compress(bytes(1_000_000)),) * 1_000),
    "screen.gif": _gif,
    "sides.bmp": lambda: _encoded("BMP", "RGB", struct.pack("<ii", 30_000, 30_000)),
    "upside down.bmp": lambda: _encoded("BMP", "RGB", struct.pack("<ii", 30_000, -30_000)),
    "header.npy": lambda: _npy((1_000_000, 1_000_000)) + bytes(100),
    "negative.npy": lambda: _npy((-1_000_000, -1_000_000)) + bytes(100),
    "points.npy": lambda: _npy((10**12, 2), "<f8"),
    "deflated.npz": lambda: _npz(2_000),
}
SPARSE: dict[str, tuple[bytes, int]] = {
    "sparse.npy": (_npy((60_000, 60_000)), 4 << 30),
    "sparse points.npy": (_npy((1 << 28, 2), "<f8"), 5 << 30),
    "sparse.bmp": (_encoded("BMP", "RGB", struct.pack("<ii", 30_000, 30_000)), 4 << 30),
    "tag.tif": (b"II*\0" + struct.pack("<IHHHII", 8, 1, 273, 4, 1 << 29, 100), 4 << 30),
    "classes.csv": (b"", 8 << 30),
    "points.json": (b"[[1, 2],", 8 << 30),
}
"""Files of a few blocks on disk, with holes."""


def _write(name: str, folder: Path) -> Path:
    path = folder / name
    if name in BOMBS:
        path.write_bytes(BOMBS[name]())
        return path
    content, size = SPARSE[name]
    path.write_bytes(content)
    os.truncate(path, size)
    return path


def _problems(name: str, done: Any) -> list[str]:
    if done.code != 0 or done.timed_out:
        return [f"{name}: {done.problem(0)}"]
    rows = [line.split() for line in done.stdout.splitlines()]
    return [
        f"{name}: {reader} took {int(memory) / 1e6:.0f} MB and {float(seconds):.1f} s"
        for reader, memory, seconds in rows
        if int(memory) > _MOST_BYTES or float(seconds) > _SECONDS
    ]


def test_bombs(
    forked: Callable[[], Any],
    drawn: Callable[..., list[str]],
    report: Callable[..., None],
    tmp_path: Path,
) -> None:
    problems, most = [], 0
    names = drawn([*BOMBS, *SPARSE])
    with forked() as space:
        for name in names:
            path = _write(name, tmp_path)
            done = space.run(code=_READ.replace("{path!r}", repr(str(path))), timeout=60)
            problems += _problems(name, done)
            most = max([most, *(int(line.split()[1]) for line in done.stdout.splitlines())])
            path.unlink()
    report(cases=len(names), problems=problems, note=f"at most {most / 1e6:.0f} MB")


# Decodes the pairs of a data set in 16 threads, or predicts a folder, and prints the peak of resident memory.
_MANY = """
import sys
from pathlib import Path
from densemble import threads
import densemble.data.parallel
densemble.data.parallel.cpu_count = lambda: 16

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS") - 400_000_000
sys.argv = ["densemble", *{arguments!r}]
try:
    from densemble.cli import main
    main()
finally:
    print("PEAK", memory("VmHWM") - before)
"""


@pytest.mark.stress
@pytest.mark.parametrize("command", ["train", "predict"])
def test_many_bombs(
    command: str, forked: Callable[[], Any], undisturbed: Undisturbed, report: Callable[..., None], tmp_path: Path
) -> None:
    """Bombs between small images, in 16 threads."""
    names = [name for name in BOMBS if name.endswith((".png", ".jpg", ".webp", ".bmp")) and name != "text.png"]
    sound = next(undisturbed.images.glob("*")).read_bytes()
    for split in ("train", "val"):
        for part in ("images", "targets"):
            (tmp_path / split / part).mkdir(parents=True)
        for number, name in enumerate(names):
            as_image, ending = number % 2 == 0, Path(name).suffix
            image, target = (BOMBS[name](), sound) if as_image else (sound, BOMBS[name]())
            (tmp_path / split / "images" / f"{number}{ending}").write_bytes(image)
            (tmp_path / split / "targets" / f"{number}{ending}").write_bytes(target)
    if command == "train":
        arguments = ["train", tmp_path, "--config", undisturbed.config, "-o", tmp_path / "run"]
    else:
        arguments = ["predict", undisturbed.artifact, tmp_path / "train" / "images", "-o", tmp_path / "out"]
    code = _MANY.replace("{arguments!r}", repr([str(argument) for argument in arguments]))
    with forked() as space:
        done = space.run(code=code, timeout=120)
    peak = int(done.stdout.rpartition("PEAK ")[2] or 1 << 40)
    problems = [problem for problem in [done.problem(3 if command == "train" else 5)] if problem]
    problems += [f"{peak / 1e6:.0f} MB"] if peak > _MOST_BYTES else []
    report(cases=2 * len(names), problems=problems, note=f"{command}: {peak / 1e6:.0f} MB")
