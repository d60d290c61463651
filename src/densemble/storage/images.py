"""The one door to image codecs: images and maps in, maps out.

An image is what a viewer would show: palettes become colours, 1 bit becomes black and white, alpha is left out, and
the EXIF orientation is applied. A map is the numbers that the file holds: palettes give their indices, 1 bit gives
0 and 1, a grey PNG of 4 bits gives 0..15. ``turn=False`` leaves the EXIF orientation out.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError, UsageError
from densemble.shapes import Array, Size
from densemble.storage import tiff
from densemble.storage.arrays import array_shape, array_type, read_array
from densemble.storage.geo import Georeference, write_geotiff
from densemble.storage.pillow import decode_image, opened, orientation_in_header, write_png
from densemble.storage.pixels import (
    Pixels,
    SeveralImages,
    UnusableMap,
    as_shown,
    as_unit,
    both,
    channels_last,
    filled,
    turned,
)
from densemble.storage.runs import atomic_path
from densemble.storage.tiff import read_validity

__all__ = [
    "IMAGE_SUFFIXES",
    "TARGET_SUFFIXES",
    "UNKNOWN",
    "SeveralImages",
    "UnusableMap",
    "as_unit",
    "both",
    "filled",
    "image_size",
    "number_type",
    "orientation",
    "palette_of",
    "read_colours",
    "read_image",
    "read_labels",
    "read_planes",
    "read_points",
    "read_validity",
    "read_values",
    "turned",
    "write_npy",
    "write_png",
    "write_tiff",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy", ".npz")
TARGET_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz", ".bmp", ".webp", ".gif", ".jpg", ".jpeg")
UNKNOWN = int(np.iinfo(np.int64).min)
"""Label of a pixel whose number in the file is NaN."""

_IMAGE_NAMES = ("image", "arr_0")  # inside an NPZ of several arrays
_MAP_NAMES = ("target", "arr_0")
_EXACT_FLOAT = 1 << 53


def read_image(path: Path, turn: bool = True) -> Array:
    """An image as ``(H, W, C)`` RGB in the file's own depth: uint8, uint16, or float32 for any other number.

    Grey becomes three equal channels; images of 2 or of more than 3 bands keep them. NPY and NPZ hold ``(H, W)``,
    ``(H, W, C)`` or, where the first axis is clearly the channel, ``(C, H, W)``; an NPZ of several arrays has its
    image under ``image`` or ``arr_0``.

    Raises:
        DataError: absent, damaged, cut short, too large, or no image.
    """
    pixels = _decode(path, _IMAGE_NAMES)
    image = as_shown(pixels)
    return turned(image, pixels.orientation) if turn else image


def image_size(path: Path) -> Size:
    """(H, W) of an image as it is shown, from its header alone.

    Raises:
        DataError: absent or no image.
    """
    match _format(path):
        case "tiff":
            (height, width), orientation = tiff.page_header(path)
        case "array":
            shape = array_shape(path, _IMAGE_NAMES)
            height, width = channels_last(np.broadcast_to(np.uint8(0), shape), path).shape[:2]
            orientation = 1
        case _:
            with opened(path) as image:
                height, width, orientation = image.height, image.width, orientation_in_header(path, image)
    return (width, height) if orientation >= 5 else (height, width)


def number_type(path: Path) -> np.dtype[Any]:
    """The type of the numbers of a map, from its header alone.

    Raises:
        DataError: absent or no image.
    """
    match _format(path):
        case "tiff":
            return tiff.page_type(path)
        case "array":
            return array_type(path, _MAP_NAMES)
        case _:
            with opened(path) as image:
                storage = str(image.tile[0].args) if image.tile else ""
                return np.dtype(np.uint16 if image.mode.startswith("I") or "16" in storage else np.uint8)


def orientation(path: Path) -> int:
    """The EXIF orientation of an image, 1..8; 1 where none is given.

    Raises:
        DataError: absent or no image.
    """
    match _format(path):
        case "tiff":
            return tiff.page_header(path)[1]
        case "array":
            return 1
        case _:
            with opened(path) as image:
                return orientation_in_header(path, image)


def read_labels(path: Path, turn: bool = True) -> Array:
    """A label map as int64 ``(H, W)``; a palette image gives its indices, never its colours. NaN is ``UNKNOWN``.

    Raises:
        DataError: unreadable, colours, or numbers that are not whole.
    """
    values = _single_channel(
        path, _decode(path, _MAP_NAMES), turn, "map its colours to labels with --set data.color_map=FILE"
    )
    unknown = np.isnan(values) if values.dtype.kind == "f" else None
    if unknown is not None:
        values = np.where(unknown, values.dtype.type(0), values)
        if not (np.isfinite(values).all() and np.array_equal(values, np.round(values))):
            raise DataError(f"labels '{path}' hold fractions or infinite values; save them as whole numbers")
    if values.dtype.itemsize > 2 and max(values.max(), -values.min().astype(np.float64)) > _EXACT_FLOAT:
        raise DataError(f"labels '{path}' reach {values.max()}; save them as small whole numbers")
    labels = values.astype(np.int64)
    return labels if unknown is None else np.where(unknown, UNKNOWN, labels)


def read_colours(path: Path, turn: bool = True) -> Array:
    """A colour-coded map as uint8 ``(H, W, 3)`` RGB; a palette is expanded to its colours.

    Raises:
        DataError: unreadable, not three channels, or colours that are not whole numbers of 0..255.
    """
    pixels = _decode(path, _MAP_NAMES)
    colours = as_shown(pixels)
    whole = (colours >= 0) & (colours <= 255) & (colours == np.round(colours))
    if colours.shape[2] != 3 or not whole.all():
        raise DataError(
            f"'{path}' holds {colours.shape[2]} channels of {colours.dtype}, wanted a colour-coded map; save it as "
            "RGB of 8 bits"
        )
    colours = colours.astype(np.uint8)
    return turned(colours, pixels.orientation) if turn else colours


def palette_of(path: Path) -> tuple[tuple[int, int, int], ...] | None:
    """The colours of a palette image, RGB in 0..255, in the order of its indices; ``None`` where it has no palette.

    Raises:
        DataError: absent, damaged, or no image.
    """
    palette = _decode(path, _MAP_NAMES).palette
    return None if palette is None else tuple((int(red), int(green), int(blue)) for red, green, blue in palette)


def read_values(path: Path, turn: bool = True) -> Array:
    """A map of values as float32 ``(H, W)``, in the file's own numbers (8-bit 0..255, 16-bit 0..65535, float as is).

    Of a palette of greys the greys count, not the indices. NaN is where the file says that it holds no data, see
    :func:`read_validity`.

    Raises:
        DataError: unreadable, colours, or not a single channel.
    """
    pixels = _decode(path, _MAP_NAMES)
    if pixels.palette is not None:  # an index is no quantity; the grey that it stands for is
        pixels = replace(pixels, values=as_shown(pixels))
    values = _single_channel(path, pixels, turn, "save one channel").astype(np.float32)
    valid = tiff.shown_validity(pixels, turn)
    return values if valid is None else np.where(valid, values, np.float32(np.nan))


def read_planes(path: Path, turn: bool = True) -> Array:
    """A map of several channels as ``(H, W, K)``, in the file's own numbers and dtype; a single channel gives K = 1.

    The planes are the bands of a TIFF or its pages of equal size, the channels of a PNG without alpha, or the axes of
    an NPY ``(H, W, K)``. An NPY ``(K, H, W)`` is accepted where K is clearly the channel: it is below 64, H and W are
    larger, and W is at least 64.

    Raises:
        DataError: unreadable, or more than one axis besides height and width.
    """
    pixels = tiff.read_bands(path) if _format(path) == "tiff" else _decode(path, _MAP_NAMES)
    return turned(pixels.values, pixels.orientation) if turn else pixels.values


def read_points(path: Path, turn: bool = True) -> Array:
    """A map of points (fixations) as bool ``(H, W)``: true where the file is not 0.

    Raises:
        DataError: unreadable, or not a single channel.
    """
    points: Array = _single_channel(path, _decode(path, _MAP_NAMES), turn, "save one channel") != 0
    return points


def write_npy(path: Path, values: Array) -> None:
    """Writes an array as NPY, as a whole or not at all.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def write_tiff(path: Path, array: Array, georeference: Georeference | None = None, nodata: float | None = None) -> None:
    """Writes a map as TIFF of K bands, as GeoTIFF where it has a georeference; ``nodata`` stands for no data in it.

    Raises:
        UsageError: another shape, a dtype that TIFF does not have, or a georeference without rasterio.
        ResourceError: the folder cannot be written or the disk is full.
    """
    if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "uif":
        raise UsageError(f"a TIFF holds numbers of shape (H, W) or (K, H, W), not {array.dtype} {array.shape}")
    with atomic_path(path) as temporary:
        if georeference is None:
            tiff.write_bands(temporary, array, nodata)
        else:
            write_geotiff(temporary, array, georeference, nodata)


def _single_channel(path: Path, pixels: Pixels, turn: bool, remedy: str) -> Array:
    values = pixels.values
    if pixels.pages > 1:
        raise SeveralImages(
            f"map '{path}' has {pixels.pages} pages, wanted one; where each is a class or a channel choose --task "
            "multilabel or --task heatmap, else save the wanted page alone"
        )
    if values.shape[2] == 3 and (values[..., :1] == values[..., 1:]).all():
        values = values[..., :1]
    if values.shape[2] != 1:
        raise DataError(f"map '{path}' has {values.shape[2]} different channels, wanted one (H, W); {remedy}")
    values = values[..., 0]
    return turned(values, pixels.orientation) if turn else values


def _format(path: Path) -> str:
    """``tiff``, ``array`` (NPY, NPZ) or ``image``, by the first bytes: names may say anything."""
    if path.is_dir():
        raise DataError(f"'{path}' is a folder, not an image or map; name a file in it")
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except FileNotFoundError as error:
        raise DataError(f"no file at '{path}'") from error
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from error
    if not start:
        raise DataError(f"'{path}' is empty (0 bytes); copy it again or remove it")
    if start.startswith(tiff.SIGNATURES):
        return "tiff"
    return "array" if start == b"\x93NUMPY" or start.startswith(b"PK\3\4") else "picture"


def _decode(path: Path, names: tuple[str, ...]) -> Pixels:
    pixels = _decode_any(path, names)
    if names == _MAP_NAMES and pixels.alpha is not None and (pixels.values == pixels.values[0, 0]).all():
        held = len(np.unique(pixels.alpha))
        if held > 1:
            raise UnusableMap(
                f"map '{path}' is one colour, its alpha channel holds {held} values: the map is in the alpha channel; "
                "save that channel alone as a grey PNG"
            )
    return pixels


def _decode_any(path: Path, names: tuple[str, ...]) -> Pixels:
    match _format(path):
        case "tiff":
            return tiff.read_page(path)
        case "array":
            return Pixels(channels_last(read_array(path, names), path))
        case _:
            return decode_image(path)
