"""Read images and maps from files, and write maps.

An image is what a viewer shows: palettes become colours, 1 bit becomes black and white, and alpha is left out. A map
holds the stored values: palettes give their indices, 1 bit gives 0 and 1, a 4-bit grey PNG gives 0..15. Both are
rotated by their EXIF orientation, except with ``turn=False``.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError, UsageError
from densemble.shapes import Array, Size
from densemble.storage import tiff
from densemble.storage.arrays import NPY_SIGNATURE, ZIP_SIGNATURE, array_header, read_array, write_npy
from densemble.storage.decoding_memory import After
from densemble.storage.geo import Georeference, write_geotiff
from densemble.storage.pillow import decode_image, opened, orientation_in_header, write_png
from densemble.storage.pixels import (
    Pixels,
    SeveralImages,
    UnusableMap,
    as_shown,
    as_unit,
    channels_last,
    filled,
    intersect_masks,
    read_signature,
    turned,
)
from densemble.storage.tiff import read_validity
from densemble.storage.writing import atomic_path

__all__ = [
    "IMAGE_SUFFIXES",
    "TARGET_SUFFIXES",
    "UNKNOWN",
    "SeveralImages",
    "UnusableMap",
    "as_unit",
    "filled",
    "image_size",
    "intersect_masks",
    "number_type",
    "orientation",
    "read_colours",
    "read_image",
    "read_labels",
    "read_palette",
    "read_planes",
    "read_points",
    "read_stored",
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
"""Label of a pixel whose stored value is NaN."""

_IMAGE_NAMES = ("image", "arr_0")  # names in an NPZ of several arrays
_MAP_NAMES = ("target", "arr_0")
_MAX_EXACT_FLOAT = 1 << 53


def read_image(path: Path, turn: bool = True) -> Array:
    """Read an image as RGB ``(H, W, C)`` in the depth of the file: uint8, uint16, or float32 for all other dtypes.

    Grey becomes three equal channels; images of 2 or more than 3 bands keep them. NPY and NPZ hold ``(H, W)``,
    ``(H, W, C)`` or, if the first axis is clearly the channel, ``(C, H, W)``. In an NPZ of several arrays the image is
    ``image`` or ``arr_0``.

    Raises:
        DataError: the file does not exist, is damaged, cut short, too large, or not an image.
    """
    pixels = _decode(path, _IMAGE_NAMES, _after_image)
    image = as_shown(pixels)
    return turned(image, pixels.orientation) if turn else image


def read_stored(path: Path) -> Pixels:
    """Read the stored values of an image, from which :func:`read_image` makes what a viewer shows; not turned.

    Raises:
        DataError: see :func:`read_image`.
    """
    return _decode(path, _IMAGE_NAMES)


def image_size(path: Path) -> Size:
    """(H, W) of an image after its orientation is applied, from the header alone.

    Raises:
        DataError: the file does not exist or is not an image.
    """
    match _format(path):
        case "tiff":
            (height, width), orientation = tiff.page_header(path)
        case "array":
            shape, _ = array_header(path, _IMAGE_NAMES)
            height, width = channels_last(np.broadcast_to(np.uint8(0), shape), path).shape[:2]
            orientation = 1
        case _:
            with opened(path) as image:
                height, width, orientation = image.height, image.width, orientation_in_header(path, image)
    return (width, height) if orientation >= 5 else (height, width)


def number_type(path: Path) -> np.dtype[Any]:
    """Dtype of a map, from the header alone.

    Raises:
        DataError: the file does not exist or is not an image.
    """
    match _format(path):
        case "tiff":
            return tiff.page_type(path)
        case "array":
            return array_header(path, _MAP_NAMES)[1]
        case _:
            with opened(path) as image:
                storage = str(image.tile[0].args) if image.tile else ""
                return np.dtype(np.uint16 if image.mode.startswith("I") or "16" in storage else np.uint8)


def orientation(path: Path) -> int:
    """EXIF orientation of an image, 1..8; 1 if the file has none.

    Raises:
        DataError: the file does not exist or is not an image.
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
    """Read a label map as int64 ``(H, W)``; a palette gives its indices, not its colours. NaN becomes ``UNKNOWN``.

    Raises:
        DataError: the file is unreadable, holds colours, or holds values that are not integers.
    """
    values = _single_channel(
        path, _decode(path, _MAP_NAMES, _after_labels), turn, "map its colours to labels with --set data.color_map=FILE"
    )
    unknown = np.isnan(values) if values.dtype.kind == "f" else None
    if unknown is not None:
        values = np.where(unknown, values.dtype.type(0), values)
        if not (np.isfinite(values).all() and np.array_equal(values, np.round(values))):
            raise DataError(f"labels '{path}' hold fractions or infinite values; save them as whole numbers")
    if values.dtype.itemsize > 2 and max(values.max(), -values.min().astype(np.float64)) > _MAX_EXACT_FLOAT:
        raise DataError(f"labels '{path}' reach {values.max()}; save them as small whole numbers")
    labels = values.astype(np.int64)
    return labels if unknown is None else np.where(unknown, UNKNOWN, labels)


def read_colours(path: Path, turn: bool = True) -> Array:
    """Read a colour-coded map as RGB uint8 ``(H, W, 3)``; a palette is expanded to its colours.

    Raises:
        DataError: the file is unreadable, does not have three channels, or holds values that are not integers 0..255.
    """
    pixels = _decode(path, _MAP_NAMES, _after_labels)
    colours = as_shown(pixels)
    is_whole = colours.dtype == np.uint8 or bool(
        ((colours >= 0) & (colours <= 255) & (colours == np.round(colours))).all()
    )
    if colours.shape[2] != 3 or not is_whole:
        raise DataError(
            f"'{path}' holds {colours.shape[2]} channels of {colours.dtype}, expected a colour-coded map; save it as "
            "8-bit RGB"
        )
    colours = colours.astype(np.uint8, copy=False)
    return turned(colours, pixels.orientation) if turn else colours


def read_palette(path: Path) -> tuple[tuple[int, int, int], ...] | None:
    """Read the colours of a palette image, RGB in 0..255, in index order; ``None`` if it has no palette.

    Raises:
        DataError: the file does not exist, is damaged, or is not an image.
    """
    palette = _decode(path, _MAP_NAMES).palette
    return None if palette is None else tuple((int(red), int(green), int(blue)) for red, green, blue in palette)


def read_values(path: Path, turn: bool = True) -> Array:
    """Read a map of values as float32 ``(H, W)``, unscaled (8 bits 0..255, 16 bits 0..65535, floats unchanged).

    A palette of greys gives the greys, not the indices. Pixels without data become NaN, see :func:`read_validity`.

    Raises:
        DataError: the file is unreadable, or holds colours or several channels.
    """
    pixels = _decode(path, _MAP_NAMES, _after_values)
    if pixels.palette is not None:  # indices are not quantities, greys are
        pixels = replace(pixels, values=as_shown(pixels))
    values = _single_channel(path, pixels, turn, "save one channel").astype(np.float32)
    valid = tiff.shown_validity(pixels, turn)
    return values if valid is None else np.where(valid, values, np.float32(np.nan))


def read_planes(path: Path, turn: bool = True) -> Array:
    """Read a map of several channels as ``(H, W, K)``, with unchanged values and dtype; one channel gives K = 1.

    The planes are the bands of a TIFF or its pages of equal size, the channels of a PNG without alpha, or the last
    axis of an NPY ``(H, W, K)``. An NPY ``(K, H, W)`` is accepted if K is clearly the channel: it is below 64, H and W
    are larger, and W is at least 64.

    Raises:
        DataError: the file is unreadable, or has more than one axis besides height and width.
    """
    pixels = tiff.read_bands(path) if _format(path) == "tiff" else _decode(path, _MAP_NAMES)
    return turned(pixels.values, pixels.orientation) if turn else pixels.values


def read_points(path: Path, turn: bool = True) -> Array:
    """Read a map of points (fixations) as bool ``(H, W)``, true where the file is not 0.

    Raises:
        DataError: the file is unreadable or has several channels.
    """
    points: Array = _single_channel(path, _decode(path, _MAP_NAMES), turn, "save one channel") != 0
    return points


def write_tiff(path: Path, array: Array, georeference: Georeference | None = None, nodata: float | None = None) -> None:
    """Write a map as TIFF of K bands, or as GeoTIFF if there is a georeference.

    Args:
        path: output file.
        array: map ``(H, W)`` or ``(K, H, W)``.
        georeference: position of the map on Earth.
        nodata: value that marks pixels without data.

    Raises:
        UsageError: unsupported shape or dtype, or a georeference without rasterio.
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
            f"map '{path}' has {pixels.pages} pages, expected one; if each page is a class or a channel use --task "
            "multilabel or --task heatmap, else save one page alone"
        )
    if values.shape[2] == 3 and (values[..., :1] == values[..., 1:]).all():
        values = values[..., :1]
    if values.shape[2] != 1:
        raise DataError(f"map '{path}' has {values.shape[2]} different channels, expected one (H, W); {remedy}")
    values = values[..., 0]
    return turned(values, pixels.orientation) if turn else values


def _format(path: Path) -> str:
    """``tiff``, ``array`` (NPY, NPZ) or ``image``, by the first bytes; the file name is not used."""
    if path.is_dir():
        raise DataError(f"'{path}' is a folder, not an image or map; name a file in it")
    signature = read_signature(path)
    if not signature:
        raise DataError(f"'{path}' is empty (0 bytes); copy it again or remove it")
    if signature.startswith(tiff.SIGNATURES):
        return "tiff"
    return "array" if signature.startswith((NPY_SIGNATURE, ZIP_SIGNATURE)) else "image"


def _after_image(channels: int, itemsize: int) -> int:
    """Grey becomes three channels; numbers become float32 unless they have 8 or 16 bits."""
    shown = max(channels, 3) * min(itemsize, 4)
    return shown if channels == 1 or itemsize > 2 else 0


def _after_labels(channels: int, itemsize: int) -> int:
    return 8  # int64


def _after_values(channels: int, itemsize: int) -> int:
    return 8  # float32, scaled


def _decode(path: Path, names: tuple[str, ...], after: After = lambda channels, itemsize: 0) -> Pixels:
    match _format(path):
        case "tiff":
            return tiff.read_page(path, after)
        case "array":
            return Pixels(channels_last(read_array(path, names, after), path))
        case _:
            pixels = decode_image(path, after)
    if names == _MAP_NAMES and pixels.alpha is not None and (pixels.values == pixels.values[0, 0]).all():
        count = len(np.unique(pixels.alpha))
        if count > 1:
            raise UnusableMap(
                f"map '{path}' is one colour, its alpha channel holds {count} values: the map is in the alpha channel; "
                "save that channel alone as a grey PNG"
            )
    return pixels
