"""Decoded pixels, before they are interpreted as image or map, and checks shared by all decoders."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError, UsageError
from densemble.input_files import open_regular
from densemble.shapes import Array

_MAX_LEADING_CHANNELS = 64
_SIGNATURE_BYTES = 6


class UnusableMap(DataError):
    """The file can be decoded but does not hold a map."""


class SeveralImages(DataError):
    """The file has several pages or frames where a single image is expected."""


@dataclass(frozen=True)
class Pixels:
    """The stored values of a file, and the properties that turn them into an image.

    Attributes:
        values: ``(H, W, C)`` in the dtype of the file, without declared alpha.
        bits: bits per sample if fewer than those of the dtype (a 4-bit grey PNG holds 0..15), else ``None``.
        palette: uint8 ``(N, 3)`` colours that ``values`` index, or ``None``.
        white_is_zero: 0 is white (TIFF's MINISWHITE).
        orientation: EXIF orientation, 1..8.
        alpha: alpha channel of an 8-bit image, uint8 ``(H, W)``.
        pages: number of TIFF pages of equal size that form the channels.
        valid: bool ``(H, W)``, true where the file holds data; ``None`` if the file does not mark missing data.
    """

    values: Array
    bits: int | None = None
    palette: Array | None = None
    white_is_zero: bool = False
    orientation: int = 1
    alpha: Array | None = None
    pages: int = 1
    valid: Array | None = None


@contextmanager
def decoding(path: Path, remedy: str) -> Iterator[None]:
    """Turn any error of a decoder into a DataError that names the file.

    Damaged files raise nearly all types of exceptions, such as struct, zlib, syntax and recursion errors.
    """
    try:
        yield
    except (DataError, UsageError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read '{path}': {reason}; {remedy}") from error


def read_signature(path: Path) -> bytes:
    """Read the first bytes of a file, which identify its format.

    Raises:
        DataError: the file does not exist, is not a regular file, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read(_SIGNATURE_BYTES)
    except FileNotFoundError as error:
        raise DataError(f"no file at '{path}'") from error
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from error


def require_numbers(path: Path, dtype: np.dtype[Any]) -> None:
    """Check that a dtype is boolean, integer or real.

    Raises:
        DataError: the dtype is text, object, record or complex.
    """
    if dtype.kind == "c":
        raise DataError(f"'{path}' holds complex numbers ({dtype}); save their magnitude or their parts as floats")
    if dtype.kind not in "biuf":
        raise DataError(f"'{path}' holds values of type {dtype}; save it as integers or floats")


def channels_last(values: Array, path: Path) -> Array:
    """Convert ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` to ``(H, W, C)``.

    The first axis is taken as the channel axis only if this is clear: it is below 64, the other axes are larger, and
    the last axis is at least 64; or it is 1 and the last axis is larger than 4, so that it is no channel axis.

    Raises:
        DataError: the number of axes is wrong, or there are no pixels.
    """
    shape = values.shape
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or math.prod(shape) == 0:
        raise DataError(f"'{path}' has shape {shape}, expected (H, W), (H, W, C) or (C, H, W); save it in one of these")
    first, rows, columns = values.shape
    clear = first < _MAX_LEADING_CHANNELS <= columns and first < rows
    if clear or (first == 1 and columns > 4):
        return np.moveaxis(values, 0, -1)
    return values


def turned(array: Array, orientation: int) -> Array:
    """Apply an EXIF orientation (1..8) to an array ``(H, W[, C])``; 5..8 exchange height and width."""
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
    """Convert stored values to the image that a viewer shows, ``(H, W, C)`` uint8, uint16 or float32."""
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


def intersect_masks(first: Array | None, second: Array | None) -> Array | None:
    """Intersect two masks; ``None`` is true everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def filled(image: Array, valid: Array | None, value_range: tuple[float, float] | None = None) -> Array:
    """Fill the invalid pixels of an image ``(H, W, C)`` with the value that :func:`as_unit` maps to 0."""
    if valid is None or valid.all():
        return image
    lowest = 0.0 if value_range is None else float(value_range[0])
    if image.dtype.kind == "u":
        lowest = min(max(round(lowest), 0), int(np.iinfo(image.dtype).max))
    return np.where(valid[..., None], image, image.dtype.type(lowest))


def as_unit(image: Array, value_range: tuple[float, float] | None = None) -> Array:
    """Convert an image to float32 in [0, 1]: uint8 / 255, uint16 / 65535, floats unchanged.

    Args:
        image: ``(H, W, C)``.
        value_range: values of a uint16 or float image that become 0 and 1; values outside are clipped.

    Raises:
        DataError: floats outside [0, 1] without ``value_range``, or undefined values.
        UsageError: the end of the range is not above its start.
    """
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    if not np.isfinite(image).all():
        raise DataError("the image holds undefined values (NaN or infinity); fill them, then save it again")
    if value_range is not None:
        low, high = value_range
        if not low < high:
            raise UsageError(f"data.image_range=[{low}, {high}] is not a range; give it as [low, high] with low < high")
        return ((image.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    if image.dtype == np.uint16:
        return image.astype(np.float32) / np.float32(65535)
    if image.min(initial=0) < 0 or image.max(initial=0) > 1:
        raise DataError(
            f"the image holds values from {image.min():g} to {image.max():g}, outside [0, 1]; name the values that "
            "become 0 and 1 with --set data.image_range=[low, high]"
        )
    return image.astype(np.float32)
