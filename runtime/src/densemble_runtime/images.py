"""Images from files, arrays and PIL images, with the pixels that densemble reads."""

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from densemble_runtime.errors import DataError, UsageError

Array = np.ndarray[Any, Any]
Source = str | Path | Array | Image.Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy", ".npz")
"""Images of a folder. TIFF, NPY and NPZ files are listed, so that an error is reported for each of them."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
_ORIENTATION = 0x0112
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Pillow keeps the high bytes of 16-bit colours only: its unpackers for the high bytes -> those for the low bytes.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Files of paths, folders and globs, in order and without repetitions; those of a folder or glob sorted by name.

    Raises:
        DataError: no file at a path, or a folder or glob without images.
    """
    images: list[Path] = []
    for path in (Path(source).expanduser() for source in sources):
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
            if not inside:
                raise DataError(f"folder '{path}' holds no images ({', '.join(SUFFIXES)})")
            images += inside
        elif path.is_file():
            images.append(path)
        elif glob.has_magic(str(path)):
            matched = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 (absolute globs)
            matches = [file for file in matched if file.suffix.lower() in SUFFIXES and file.is_file()]
            if not matches:
                raise DataError(f"no image matches '{path}'")
            images += matches
        else:
            raise DataError(f"no image, folder or glob at '{path}'; check the path")
    return list(dict.fromkeys(images))


def read_file(path: Path) -> Array:
    """Read an image as RGB ``(H, W, 3)``, uint8 or uint16, rotated by its EXIF orientation, without alpha.

    Raises:
        DataError: the file is absent, damaged, an animation, or of a format that Pillow does not read exactly.
    """
    if path.suffix.lower() in (".tif", ".tiff", ".npy", ".npz"):
        raise DataError(f"'{path}': {path.suffix} files are not read; pass their pixels as an array, or save a PNG")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            storage = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
            if image.format != "GIF":
                _require_one_frame(image, path)
            image.load()
            _require_one_frame(image, path)
            return turned(_pixels(image, storage, path), _orientation(image))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"no file at '{path}'") from error
    except UnidentifiedImageError as error:
        raise DataError(f"'{path}' is not a PNG, JPEG, BMP, WebP or GIF image; convert or replace it") from error
    except Exception as error:  # decoders of damaged files raise errors of nearly all types
        raise DataError(f"cannot read '{path}': {error or type(error).__name__}; copy it again") from error


def _require_one_frame(image: ImageFile.ImageFile, path: Path) -> None:
    if image.format in ("PNG", "WEBP", "GIF") and getattr(image, "n_frames", 1) > 1:
        raise DataError(f"'{path}' is an animation; save each frame in a separate file")


def _pixels(image: Image.Image, storage: str, path: Path) -> Array:
    """Stored pixels as a viewer shows them, ``(H, W, 3)``; ``storage`` is the name of Pillow's unpacker of a PNG."""
    if image.mode == "P":
        colours = np.zeros((256, 3), np.uint8)  # indices behind the end of the palette are black
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        colours[: len(palette)] = palette
        shown: Array = colours[np.asarray(image)]
        return shown
    if storage in _LOW_BYTES:
        low = _unpacked(path, _LOW_BYTES[storage])
        return (np.asarray(image).astype(np.uint16) << 8 | low)[:, :, :3]
    if storage == "LA;16B":  # read the four bytes of a pixel as if they were R, G, B, A
        high_low = _unpacked(path, "RGBA").astype(np.uint16)
        return np.repeat(high_low[:, :, :1] << 8 | high_low[:, :, 1:2], 3, axis=2)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.dtype.kind != "u":
        raise DataError(f"'{path}' holds pixels of type {values.dtype}; save it with 8 or 16 bits per channel")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.ndim == 3 and image.mode in ("LA", "La", "RGBA", "RGBa", "RGBX", "PA"):
        values = values[:, :, :-1]
    values = values if values.ndim == 3 else values[:, :, None]
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def _unpacked(path: Path, unpacker: str) -> Array:
    with Image.open(path, formats=_FORMATS) as image:
        image.tile = [tile._replace(args=unpacker) for tile in image.tile]
        return np.asarray(image)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels are intact if only the EXIF block is damaged; viewers ignore it too
        return 1
    return int(value) if value in range(1, 9) else 1


def turned(pixels: Array, orientation: int) -> Array:
    """Apply an EXIF orientation (1..8) to pixels ``(H, W, C)``; 5..8 exchange height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def as_pixels(image: Array | Image.Image, channels: int) -> Array:
    """Pixels ``(H, W, C)`` of an array or a PIL image, which is rotated by its EXIF orientation.

    Raises:
        UsageError: wrong shape or type, or a PIL image that does not have 8 bits per channel.
    """
    if isinstance(image, Image.Image):
        if channels == 3 and image.mode not in _EIGHT_BITS:
            raise UsageError(f"a PIL image of mode {image.mode} does not have 8 bits per channel; pass its file")
        pixels = turned(np.asarray(image.convert("RGB") if channels == 3 else image), _orientation(image))
        image = pixels if pixels.ndim == 3 else pixels[:, :, None]
    if not isinstance(image, np.ndarray):
        raise UsageError(
            f"a {type(image).__name__} is no image; pass a path, a PIL image, an array, or a list of these"
        )
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        raise UsageError(f"an array must be (H, W, {channels}) with at least one pixel, got {image.shape}")
    return image
