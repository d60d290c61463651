"""The one door to image codecs: pictures and maps in, maps out."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from densemble.errors import DataError, ResourceError
from densemble.shapes import Size

Array = np.ndarray[Any, Any]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
TARGET_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".bmp", ".jpg", ".jpeg")
_MAX_MAP_BYTES = 4 << 30


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise DataError(f"no file at '{path}'") from error
    except UnidentifiedImageError as error:
        raise DataError(f"'{path}' is not a picture that can be read; replace or remove it") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read '{path}': {error}; the file is damaged or cut short: copy it again") from error
    return image


def read_image(path: Path) -> Array:
    """A picture as uint8 ``(H, W, 3)`` RGB, turned as its EXIF orientation says; 16-bit grey is reduced to 8 bits.

    Raises:
        DataError: absent, damaged, cut short, or no picture.
    """
    image = ImageOps.exif_transpose(_open(path))
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        values = values / 257 if values.max(initial=0) > 255 else values
        return np.repeat(values.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def image_size(path: Path) -> Size:
    """(H, W) of a picture as it is shown, from its header alone.

    Raises:
        DataError: absent or no picture.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"'{path}' is not a picture that can be read ({error}); replace or remove it") from error


def read_labels(path: Path) -> Array:
    """A label map as integers ``(H, W)``; a palette picture gives its indices, never its colours.

    Raises:
        DataError: unreadable, or no single-channel integer map.
    """
    values = _read_single_channel(path)
    if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
        raise DataError(f"labels '{path}' hold fractions; save them as whole numbers")
    return values.astype(np.int64)


def read_values(path: Path) -> Array:
    """A map of values as float32 ``(H, W)``, in the file's own numbers (8-bit 0..255, 16-bit 0..65535, float as is).

    Raises:
        DataError: unreadable, or not a single channel.
    """
    return _read_single_channel(path).astype(np.float32)


def read_points(path: Path) -> Array:
    """A map of points (fixations) as bool ``(H, W)``: true where the file is not 0.

    Raises:
        DataError: unreadable, or not a single channel.
    """
    points: Array = _read_single_channel(path) != 0
    return points


def _read_single_channel(path: Path) -> Array:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = _read_npy(path)
    elif suffix in (".tif", ".tiff"):
        values = _read_tiff(path)
    else:
        values = np.asarray(_open(path))
    if values.ndim == 3 and values.shape[2] in (3, 4) and (values[..., :1] == values[..., :3]).all():
        values = values[..., 0]
    values = values.squeeze()
    if values.ndim != 2:
        raise DataError(f"map '{path}' has shape {values.shape}, wanted one channel (H, W); colour maps cannot be read")
    return values


def _read_npy(path: Path) -> Array:
    try:
        lazily: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        if lazily.nbytes > _MAX_MAP_BYTES:
            raise DataError(f"'{path}' claims {lazily.nbytes >> 20} MiB for one map; it is damaged or no map")
        return np.array(lazily)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read '{path}': {error}; save it with numpy.save") from error


def _read_tiff(path: Path) -> Array:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if int(np.prod(page.shape)) * page.dtype.itemsize > _MAX_MAP_BYTES:
                raise DataError(f"'{path}' claims {page.shape} values for one map; it is damaged or no map")
            return np.asarray(page.asarray())
    except DataError:
        raise
    except Exception as error:  # tifffile lets its decoders' own errors through
        raise DataError(f"cannot read '{path}': {error}; the file is damaged or no TIFF") from error


def write_png(path: Path, pixels: Array) -> None:
    """Writes uint8 ``(H, W)``, uint8 ``(H, W, 3)`` or uint16 ``(H, W)`` as PNG.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, "PNG")
    except OSError as error:
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another folder") from error


def write_npy(path: Path, values: Array) -> None:
    """Writes an array as NPY.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    try:
        np.save(path, values, allow_pickle=False)
    except OSError as error:
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another folder") from error
