"""What a decoded file is, before anybody asks whether it is an image or a map."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError, UsageError
from densemble.shapes import Array

_MAX_BYTES = 4 << 30
_ALWAYS_PLAUSIBLE_BYTES = 64 << 20
_BEST_COMPRESSION = 1 << 16  # a constant map in zstd or in a sparse GeoTIFF; deflate ends near 1032
_MOST_CHANNELS_IN_FRONT = 64


class UnusableMap(DataError):
    """A file that can be decoded, but does not hold a map where maps are read."""


class SeveralImages(DataError):
    """A file of several pages or frames, of which none is the one that is wanted."""


@dataclass(frozen=True)
class Pixels:
    """The numbers of a file as they are stored, and what they need to become an image.

    Attributes:
        values: ``(H, W, C)`` in the file's own dtype; declared alpha is left out.
        bits: bits of a sample where they are fewer than the dtype's (a grey PNG of 4 bits holds 0..15), else ``None``.
        palette: uint8 ``(N, 3)`` colours that ``values`` point into, or ``None``.
        white_is_zero: the numbers count darkness (TIFF's MINISWHITE).
        orientation: EXIF orientation, 1..8.
        alpha: uint8 ``(H, W)`` of an 8-bit image that has one.
        pages: of a TIFF whose pages of equal size are the channels.
        valid: bool ``(H, W)``: where the file says that it holds data; ``None``: it says nothing.
    """

    values: Array
    bits: int | None = None
    palette: Array | None = None
    white_is_zero: bool = False
    orientation: int = 1
    alpha: Array | None = None
    pages: int = 1
    valid: Array | None = None


def require_plausible(path: Path, claimed: int, stored: int) -> None:
    """Refuses a file whose header claims more bytes than one map has, or than ``stored`` bytes can hold.

    Raises:
        DataError: above 4 GiB, or a decompression bomb.
    """
    bomb = claimed > _ALWAYS_PLAUSIBLE_BYTES and claimed > stored * _BEST_COMPRESSION
    if claimed > _MAX_BYTES or bomb:
        raise DataError(
            f"'{path}' ({stored} bytes) claims {claimed >> 20} MiB for one image or map; it is damaged: copy it "
            f"again, or cut it into pieces below {_MAX_BYTES >> 30} GiB"
        )


def require_numbers(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuses anything but booleans, integers and real numbers.

    Raises:
        DataError: text, objects, records or complex numbers.
    """
    if dtype.kind == "c":
        raise DataError(f"'{path}' holds complex numbers ({dtype}); save their magnitude or their parts as floats")
    if dtype.kind not in "biuf":
        raise DataError(f"'{path}' holds values of type {dtype}; save it as integers or floats")


def channels_last(values: Array, path: Path) -> Array:
    """``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` -> ``(H, W, C)``.

    The first axis counts as the channel only where that is clear: it is below 64, both others are larger, and the
    last is at least 64; or it is 1 and the last is more than the 4 channels of an image one pixel high.

    Raises:
        DataError: another number of axes, or no pixels.
    """
    shape = values.shape
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or math.prod(shape) == 0:
        raise DataError(f"'{path}' has shape {shape}, wanted (H, W), (H, W, C) or (C, H, W); save it in one of these")
    first, rows, columns = values.shape
    clear = first < _MOST_CHANNELS_IN_FRONT <= columns and first < rows
    if clear or (first == 1 and columns > 4):
        return np.moveaxis(values, 0, -1)
    return values


def turned(array: Array, orientation: int) -> Array:
    """An array ``(H, W[, C])`` as its EXIF orientation (1..8) wants it shown; 5..8 exchange height and width."""
    match orientation:
        case 2:
            array = array[:, ::-1]
        case 3:
            array = array[::-1, ::-1]
        case 4:
            array = array[::-1]
        case 5:
            array = array.swapaxes(0, 1)
        case 6:
            array = array[::-1].swapaxes(0, 1)
        case 7:
            array = array[::-1, ::-1].swapaxes(0, 1)
        case 8:
            array = array.swapaxes(0, 1)[::-1]
    return np.ascontiguousarray(array)


def as_shown(pixels: Pixels) -> Array:
    """What a viewer shows of the numbers: ``(H, W, C)`` uint8, uint16 or, from any other dtype, float32."""
    values = pixels.values
    if pixels.palette is not None:
        colours: Array = pixels.palette[values[..., 0]]
        return colours
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    elif values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.float32)
    if values.dtype.kind == "u":
        full = np.iinfo(values.dtype).max
        if pixels.bits is not None:
            values = (values * (full / ((1 << pixels.bits) - 1))).round().astype(values.dtype)
        values = full - values if pixels.white_is_zero else values
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def both(first: Array | None, second: Array | None) -> Array | None:
    """Where two masks are true; ``None`` is true everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def filled(image: Array, valid: Array | None, value_range: tuple[float, float] | None = None) -> Array:
    """An image ``(H, W, C)`` that holds what becomes 0 in :func:`as_unit` wherever it is not ``valid``."""
    if valid is None or valid.all():
        return image
    lowest = 0.0 if value_range is None else float(value_range[0])
    if image.dtype.kind == "u":
        lowest = min(max(round(lowest), 0), int(np.iinfo(image.dtype).max))
    return np.where(valid[..., None], image, image.dtype.type(lowest))


def as_unit(image: Array, value_range: tuple[float, float] | None = None) -> Array:
    """An image as float32 in [0, 1]: uint8 / 255, uint16 / 65535, floats as they are.

    Args:
        image: ``(H, W, C)``.
        value_range: the numbers of a uint16 or float image that become 0 and 1; what lies outside is clipped.

    Raises:
        DataError: floats outside [0, 1] without ``value_range``, or undefined values.
        UsageError: a range whose end is not above its start.
    """
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    if not np.isfinite(image).all():
        raise DataError("the image holds undefined values (NaN or infinity); fill them, then save it again")
    if value_range is not None:
        low, high = value_range
        if not low < high:
            raise UsageError(f"data.image_range=[{low}, {high}] is no range; give it as [low, high] with low < high")
        return ((image.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    if image.dtype == np.uint16:
        return image.astype(np.float32) / np.float32(65535)
    if image.min(initial=0) < 0 or image.max(initial=0) > 1:
        raise DataError(
            f"the image holds values from {image.min():g} to {image.max():g}, outside [0, 1]; name the values that "
            "become 0 and 1 with --set data.image_range=[low, high]"
        )
    return image.astype(np.float32)
