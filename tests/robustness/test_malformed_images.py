"""Cut and changed images are arrays or errors that name the file, and cost only themselves in a folder."""

import io
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from robustness.small_runs import Undisturbed

from densemble.errors import DensembleError
from densemble.storage.images import (
    image_size,
    number_type,
    orientation,
    read_colours,
    read_image,
    read_labels,
    read_palette,
    read_planes,
    read_validity,
    read_values,
)
from densemble.storage.large_image import open_large

CASES = 350
SECONDS = 10.0
_NUMBERS = (bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
_GREY = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
_RGB = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def _pillow(kind: str, mode: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    source = _GREY if mode in ("1", "L", "P") else _RGB
    image = Image.fromarray(source).quantize(16) if mode == "P" else Image.fromarray(source).convert(mode)
    image.save(stream, kind, **options)
    return stream.getvalue()


def _exif() -> bytes:
    image, exif = Image.fromarray(_RGB), Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def _animated() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(_GREY).save(stream, "GIF", save_all=True, append_images=[Image.fromarray(255 - _GREY)])
    return stream.getvalue()


def _tiff(values: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def _numpy(save: Callable[..., None], *arrays: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays)
    return stream.getvalue()


SOUND: dict[str, Callable[[], bytes]] = {
    "1 bit.png": lambda: _pillow("PNG", "1"),
    "2 bits.png": lambda: bytes(imagecodecs.png_encode(_GREY // 64)),
    "grey.png": lambda: _pillow("PNG", "L"),
    "palette.png": lambda: _pillow("PNG", "P", bits=4),
    "colours.png": lambda: _pillow("PNG", "RGB"),
    "alpha.png": lambda: _pillow("PNG", "RGBA"),
    "16 bits.png": lambda: bytes(imagecodecs.png_encode(_GREY.astype(np.uint16) * 257)),
    "16 bit colours.png": lambda: bytes(imagecodecs.png_encode(_RGB.astype(np.uint16) * 257)),
    "16 bit alpha.png": lambda: bytes(imagecodecs.png_encode(_RGB[..., :2].astype(np.uint16) * 257)),
    "baseline.jpg": lambda: _pillow("JPEG", "RGB"),
    "progressive.jpg": lambda: _pillow("JPEG", "RGB", progressive=True),
    "cmyk.jpg": lambda: _pillow("JPEG", "CMYK"),
    "turned.jpg": _exif,
    "lossy.webp": lambda: _pillow("WEBP", "RGB"),
    "lossless.webp": lambda: _pillow("WEBP", "RGBA", lossless=True),
    "still.gif": lambda: _pillow("GIF", "P"),
    "animated.gif": _animated,
    "colours.bmp": lambda: _pillow("BMP", "RGB"),
    "palette.bmp": lambda: _pillow("BMP", "P"),
    "plain.tif": lambda: _tiff(_RGB),
    "lzw.tif": lambda: _tiff(_RGB, compression="lzw", predictor=True),
    "deflate.tif": lambda: _tiff(_GREY, compression="zlib"),
    "zstd.tif": lambda: _tiff(_RGB, compression="zstd"),
    "packbits.tif": lambda: _tiff(_GREY, compression="packbits"),
    "jpeg.tif": lambda: _tiff(_RGB, compression="jpeg"),
    "webp.tif": lambda: _tiff(_RGB, compression="webp"),
    "jpeg 2000.tif": lambda: _tiff(_RGB, compression="jpeg2000"),
    "lerc.tif": lambda: _tiff(_GREY.astype(np.float32), compression="lerc"),
    "tiled.tif": lambda: _tiff(_RGB, tile=(16, 16), compression="zlib"),
    "pages.tif": lambda: _tiff(np.stack([_GREY] * 3), photometric="minisblack"),
    "big.tif": lambda: _tiff(_RGB, bigtiff=True),
    "big endian.tif": lambda: _tiff(_GREY.astype(">u2"), byteorder=">"),
    "floats.tif": lambda: _tiff(_GREY.astype(np.float32) / 255, compression="zlib", predictor=True),
    "ome.tif": lambda: _tiff(np.stack([_GREY] * 3), ome=True, metadata={"axes": "CYX"}),
    "nodata.tif": lambda: _tiff(_GREY, extratags=[(42113, "s", 0, "0", True)]),
    "values.npy": lambda: _numpy(np.save, _GREY.astype(np.float32) / 255),
    "fortran.npy": lambda: _numpy(np.save, np.asfortranarray(_RGB)),
    "stored.npz": lambda: _numpy(np.savez, _RGB),
    "deflated.npz": lambda: _numpy(np.savez_compressed, _RGB),
}


def _windows(path: Path) -> None:
    with open_large(path) as image:
        image.read(0, 0, *image.size)


READERS: tuple[Callable[[Path], object], ...] = (
    image_size, number_type, orientation, read_image, read_labels, read_colours, read_values, read_planes,
    read_palette, read_validity, _windows,
)  # fmt: skip


def _changed(content: bytes, chance: random.Random) -> bytes:
    """Cut the content, change bytes of it, repeat a part, or add bytes."""
    changed = bytearray(content)
    match chance.randrange(6):
        case 0:
            del changed[chance.randrange(len(changed)) :]
        case 1:
            for _ in range(chance.randint(1, 8)):
                changed[chance.randrange(min(200, len(changed)))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        case 2:
            for _ in range(chance.randint(1, 30)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        case 3:
            start = chance.randrange(len(changed))
            del changed[start : start + chance.randint(1, 60)]
        case 4:
            start = chance.randrange(len(changed))
            changed[start:start] = changed[start : start + chance.randint(1, 200)] * chance.randint(1, 4)
        case _:
            start = chance.randrange(len(changed) - 4)
            changed[start : start + 4] = chance.choice(
                (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
            )
    return bytes(changed)


def _malformed(number: int, sound: dict[str, bytes]) -> tuple[str, bytes]:
    name = list(sound)[number % len(sound)]
    stem, _, ending = name.rpartition(".")
    return f"{number:03d} {stem}.{ending}", _changed(sound[name], random.Random(number))


class _Hang(Exception):
    pass


def _hang(number: int, frame: object) -> None:
    raise _Hang


def _problems(path: Path) -> list[str]:
    problems = []
    for read in READERS:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            read(path)
        except DensembleError as error:
            if str(path) not in str(error):
                problems.append(f"{path.name}: {read.__name__} does not name it: {error}")
        except BaseException as error:  # a hang, too
            problems.append(f"{path.name}: {read.__name__}: {type(error).__name__}: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return problems


@pytest.mark.filterwarnings("ignore")
def test_readers_of_malformed_images(
    drawn: Callable[..., list[int]],
    report: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sound = {name: make() for name, make in SOUND.items()}
    numbers, problems = drawn(range(CASES)), []
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        for number in numbers:
            name, content = _malformed(number, sound)
            (tmp_path / name).write_bytes(content)
            problems += _problems(tmp_path / name)
    finally:
        signal.signal(signal.SIGALRM, before)
    output = capfd.readouterr()
    problems += [f"printed: {line}" for line in (output.out + output.err).splitlines()[:5]]
    report(cases=len(numbers), problems=problems)


def test_sound_images_are_read(tmp_path: Path) -> None:
    for name, make in SOUND.items():
        (tmp_path / name).write_bytes(make())
        if name not in ("animated.gif", "pages.tif"):
            assert read_image(tmp_path / name).shape[2] in (2, 3), name
            assert image_size(tmp_path / name) in ((24, 32), (32, 24)), name


def test_a_folder_of_malformed_images(
    forked: Callable[[], Any],
    undisturbed: Undisturbed,
    drawn: Callable[..., list[int]],
    report: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Every image that can be read is predicted, and every other one is reported."""
    folder, sound = tmp_path / "images", {name: make() for name, make in SOUND.items()}
    folder.mkdir()
    numbers = drawn(range(CASES))
    for number in numbers:
        name, content = _malformed(number, sound)
        (folder / name).write_bytes(content)
    (folder / "sound.png").write_bytes(sound["colours.png"])
    with forked() as space:
        done = space.run("predict", undisturbed.artifact, folder, "-o", tmp_path / "out", "--save", "map", timeout=240)
    problems = [problem for problem in [done.problem(5)] if problem]
    listed = [path for path in folder.iterdir() if path.suffix != ".gif"]
    maps = {path.name.rpartition("_map.")[0] for path in (tmp_path / "out").glob("*_map.*")}
    failed = done.stderr.count("failed: ")
    if len(maps) + failed != len(listed) or "sound" not in maps:
        problems.append(f"{len(maps)} maps and {failed} failures of {len(listed)} images: {done.stderr[-300:]}")
    report(cases=len(numbers), problems=problems)
