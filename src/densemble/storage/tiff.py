"""Read and write TIFF files: one image, all bands, and valid pixels."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError
from densemble.shapes import Array, Size
from densemble.storage.decoding_memory import After, decoding_memory
from densemble.storage.pixels import (
    Pixels,
    SeveralImages,
    intersect_masks,
    read_signature,
    require_numbers,
    turned,
)
from densemble.storage.tiff_directories import open_file, reading, require_all_pages, require_segments
from densemble.storage.validity import NODATA_TAG, differs_from_nodata, mask_file, mask_pages, nodata_of, nodata_text

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, either byte order
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated
_MINISWHITE, _PALETTE, _SEPARATED, _YCBCR, _CIELAB = 0, 3, 5, 6, 8
_UNCOMPRESSED, _JPEG = 1, 7
_ORIENTATION_TAG = 274
_PAGES_SHOWN = 5
_ONE_IMAGE = "save each image in a separate file, or the channels of one image in one page"
_TILE_LEVEL = 4  # deflate level; level 6 takes 25 % longer and saves 1 %
_GEOTIFF_TAGS = (33550, 33922, 34264, 34735)  # pixel scale, tie points, transformation, keys
_GEOTIFF_PARAMETERS = (34736, 34737)  # numbers and texts that the keys refer to


def read_page(path: Path, after: After = lambda channels, itemsize: 0) -> Pixels:
    """Read the image of a TIFF at full resolution, without alpha.

    Grey pages of equal size are channels, as in OME and ImageJ files (axis C). ``after`` is the memory that the caller
    needs next.

    Raises:
        SeveralImages: the pages are not channels of one image.
        DataError: the file does not exist, is damaged, or has a colour space other than grey, RGB and palette.
    """
    with _opened(path) as file:
        page = file.pages.first
        require_known_colours(path, page)
        require_numbers(path, page.dtype)
        in_pages = has_channels_in_pages(file)
        pages, masks = [] if in_pages else image_pages(path, file), mask_pages(file)
        with decoding_memory(path, _needed_bytes(file, [] if in_pages else [*pages, *masks], after)):
            return _read_page(path, file, pages, masks)


def _read_page(path: Path, file: Any, pages: Sequence[Any], mask_parts: Sequence[Any]) -> Pixels:
    page = file.pages.first
    if pages:
        parts = [_read(path, [part], part.shape, part.axes, part.asarray) for part in pages]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        pixels = replace(page_pixels(page, values), pages=len(pages))
    else:
        pixels = Pixels(_read_series(path, file.series[0]), orientation=page_orientation(page))
    masks = [_read(path, [mask], mask.shape, mask.axes, mask.asarray) for mask in mask_parts]
    if (mask_path := mask_file(path)) is not None:
        masks.append(read_page(mask_path).values)
    for mask in masks:
        pixels = replace(pixels, valid=intersect_masks(pixels.valid, np.not_equal(mask[..., 0], 0)))
    return pixels


def _needed_bytes(file: Any, pages: Sequence[Any], after: After = lambda channels, itemsize: 0) -> int:
    """Bytes in memory while an image is decoded: its values, a decoded strip, and a copy if pages are joined."""
    page = file.pages.first
    shapes = [part.shape for part in pages] or [file.series[0].levels[0].shape]
    samples: int = sum(math.prod(shape) for shape in shapes)
    key = page.keyframe
    rows, columns = (key.tilelength, key.tilewidth) if key.is_tiled else (min(key.rowsperstrip, page.imagelength), 0)
    strip: int = rows * (columns or page.imagewidth) * (page.samplesperpixel if page.planarconfig == 1 else 1)
    if page.compression == _UNCOMPRESSED and page.bitspersample == page.dtype.itemsize * 8:
        strip = 0  # read into place
    joined = samples if len(pages) > 1 else 0
    pixels: int = max(page.imagelength * page.imagewidth, 1)
    itemsize: int = page.dtype.itemsize
    return max(
        (samples + max(strip, joined)) * itemsize,
        samples * itemsize + pixels * after(max(samples // pixels, 1), itemsize),
    )


def read_validity(path: Path, turn: bool = True) -> Array | None:
    """Read the mask of valid pixels, bool ``(H, W)``; ``None`` if the file does not mark missing data.

    A TIFF marks missing data by a nodata value or by a mask, in the file or in ``NAME.tif.msk``; a GeoTIFF also by its
    alpha. A pixel is valid if at least one channel holds data.

    Raises:
        DataError: the file does not exist or is damaged.
    """
    if not read_signature(path).startswith(SIGNATURES):
        return None
    with _opened(path) as file:
        page = file.pages.first
        alpha = _has_georeference(page) and any(int(sample) in _ALPHA for sample in page.extrasamples)
        if not (alpha or nodata_of(page) is not None or mask_pages(file) or mask_file(path)):
            return None
    return shown_validity(read_page(path), turn)


def shown_validity(pixels: Pixels, turn: bool) -> Array | None:
    """Mask of valid pixels, with the orientation of the image applied if ``turn``."""
    return turned(pixels.valid, pixels.orientation) if turn and pixels.valid is not None else pixels.valid


def page_pixels(page: Any, values: Array) -> Pixels:
    """Interpret samples ``(h, w, C)`` of a tifffile page or a part of it, and remove alpha."""
    alpha = sum(int(sample) in _ALPHA for sample in page.extrasamples)
    opaque: Array | None = np.not_equal(values[..., -1], 0) if alpha and _has_georeference(page) else None
    colours = values[:, :, : values.shape[2] - alpha]
    return Pixels(
        colours,
        None if values.dtype.kind != "u" or page.bitspersample == values.itemsize * 8 else page.bitspersample,
        _palette(page),
        page.photometric == _MINISWHITE,
        page_orientation(page),
        valid=intersect_masks(opaque, differs_from_nodata(page, colours)),
    )


def image_pages(path: Path, file: Any) -> list[Any]:
    """Pages that are channels of the image of an open file, usually the first page only.

    Smaller pages are the pyramid or a thumbnail.

    Raises:
        SeveralImages: the other pages are separate images.
    """
    first = file.pages.first
    if file.is_imagej or file.is_ome or len(file.pages) == 1:
        stored = file.series[0].levels[0]
        if (count := math.prod(stored.shape) // max(math.prod(first.shape), 1)) > 1:
            raise SeveralImages(f"'{path}' holds {count} pages (axes {stored.axes} {stored.shape}); {_ONE_IMAGE}")
        return [first]
    others = [file.pages[number] for number in range(1, len(file.pages))]
    area = first.imagelength * first.imagewidth
    large = [p for p in others if not (p.is_reduced or p.is_mask) and p.imagelength * p.imagewidth >= area]
    has_several_channels = first.samplesperpixel > 1 or _palette(first) is not None
    if large and (has_several_channels or any(_channel_format(page) != _channel_format(first) for page in large)):
        sizes = ", ".join(f"{page.imagelength}x{page.imagewidth}" for page in [first, *large][:_PAGES_SHOWN])
        raise SeveralImages(f"'{path}' holds {1 + len(large)} pages ({sizes}); {_ONE_IMAGE}")
    return [first, *large]


def _channel_format(page: Any) -> tuple[Any, ...]:
    """Properties that are equal in all pages that are channels of one image."""
    return page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype, page.bitspersample, page.photometric


def has_channels_in_pages(file: Any) -> bool:
    """Whether an open file stores the channels of its image in separate pages, as OME and ImageJ do."""
    return bool((file.is_ome or file.is_imagej) and set(file.series[0].axes) == set("CYX"))


def read_bands(path: Path) -> Pixels:
    """Read all bands or pages of a TIFF that have the size of the first page, as channels, including alpha.

    Raises:
        DataError: the file does not exist, is damaged, or has more than one axis besides height and width.
    """
    with _opened(path) as file:
        require_all_pages(path, file)
        require_numbers(path, file.pages.first.dtype)
        with decoding_memory(path, _needed_bytes(file, [])):
            return Pixels(_read_series(path, file.series[0]), orientation=page_orientation(file.pages.first))


def page_header(path: Path) -> tuple[Size, int]:
    """Stored (H, W) of the first page and its EXIF orientation, without decoding.

    Raises:
        DataError: the file does not exist or is damaged.
    """
    with _opened(path) as file:
        page = file.pages.first
        return (page.imagelength, page.imagewidth), page_orientation(page)


def page_type(path: Path) -> np.dtype[Any]:
    """Dtype of the first page.

    Raises:
        DataError: the file does not exist, is damaged, or holds no numbers.
    """
    with _opened(path) as file:
        require_numbers(path, file.pages.first.dtype)
        dtype: np.dtype[Any] = np.dtype(file.pages.first.dtype)
        return dtype


def is_geotiff(path: Path) -> bool:
    """Whether a file is a TIFF with GeoTIFF tags.

    Raises:
        DataError: the file does not exist or is a damaged TIFF.
    """
    if not read_signature(path).startswith(SIGNATURES):
        return False
    with _opened(path) as file:
        return _has_georeference(file.pages.first)


def geotiff_tags(path: Path) -> dict[int, Any]:
    """Read the georeference tags of a TIFF by number: float64, uint16 or text.

    GDAL's nodata value is not included: it refers to the values of the image and would hide a class of a map.

    Raises:
        DataError: the file does not exist or is a damaged TIFF.
    """
    with _opened(path) as file:
        tags = file.pages.first.tags
        return {code: tags[code].value for code in (*_GEOTIFF_TAGS, *_GEOTIFF_PARAMETERS) if code in tags}


def encode_tile(tile: Array) -> bytes:
    """Encode a tile ``(h, w)`` as differences of neighbours in a row (:func:`predictor_of`), compressed by deflate."""
    import imagecodecs

    encode = imagecodecs.floatpred_encode if tile.dtype.kind == "f" else imagecodecs.delta_encode
    return bytes(imagecodecs.deflate_encode(encode(tile, axis=-1).tobytes(), level=_TILE_LEVEL))


def predictor_of(dtype: np.dtype[Any]) -> int:
    """TIFF code of the predictor that :func:`encode_tile` applies before compression."""
    return 3 if dtype.kind == "f" else 2


def write_bands(path: Path, bands: Array, nodata: float | None = None) -> None:
    """Write ``(H, W)`` or ``(K, H, W)`` as one page with K bands and deflate compression.

    ``nodata`` is the value that marks pixels without data.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    import tifffile

    layout = {"planarconfig": "separate"} if len(bands) > 1 and bands.ndim == 3 else {}
    tags = [] if nodata is None else [(NODATA_TAG, "s", 0, nodata_text(nodata), True)]
    options = {"photometric": "minisblack", "compression": "zlib", "metadata": None, "extratags": tags, **layout}
    tifffile.imwrite(path, bands, **options)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with reading(path), open_file(path) as file:
        yield file


def _read_series(path: Path, series: Any) -> Array:
    level = series.levels[0]
    pages = [page for page in level.pages if page is not None]
    return _read(path, pages, level.shape, level.axes, level.asarray)


def _read(path: Path, pages: Sequence[Any], shape: tuple[int, ...], axes: str, decode: Callable[[], Array]) -> Array:
    first = pages[0]
    require_numbers(path, first.dtype)
    claimed, stored = math.prod(shape) * first.dtype.itemsize, path.stat().st_size
    if not claimed:
        raise DataError(f"'{path}' has no pixels; save it again")
    require_all_bytes(path, pages)
    require_segments(path, first.parent, pages)
    complete = all(first.databytecounts)  # GDAL does not store empty tiles
    if first.compression == _UNCOMPRESSED and complete and math.prod(shape) * first.bitspersample > stored * 8:
        raise DataError(
            f"'{path}' claims {claimed} bytes of pixels in a file of {stored}; it is damaged: copy it again"
        )
    values = np.asarray(decode())
    return _by_channel(path, values.astype(values.dtype.newbyteorder("="), copy=False), axes)


def require_all_bytes(path: Path, pages: Sequence[Any]) -> None:
    """Check that a file contains all pixels of its pages.

    Raises:
        DataError: the file is cut short.
    """
    stored = path.stat().st_size
    for page in pages:
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        if max((offset + count for offset, count in segments), default=0) > stored:
            raise DataError(f"'{path}' is cut short: it ends before its pixels do; copy it again")


def _by_channel(path: Path, values: Array, axes: str) -> Array:
    """Reorder axes as named by tifffile (``SYX``, ``QYX``, ``ZYXS``) to ``(H, W, C)``."""
    kept = [index for index, axis in enumerate(axes) if axis in "YX" or values.shape[index] != 1]
    values = values.reshape([values.shape[index] for index in kept])
    others = [position for position, index in enumerate(kept) if axes[index] not in "YX"]
    if len(others) > 1:
        raise DataError(f"'{path}' has the axes {axes} {values.shape}; save one channel axis beside height and width")
    return np.moveaxis(values, others[0], -1) if others else values[:, :, None]


def require_known_colours(path: Path, page: Any) -> None:
    """Check that the colour space of a page is grey, RGB or palette.

    Raises:
        DataError: CMYK, CIELAB, or YCbCr that its decoder does not convert.
    """
    decoded_to_rgb = page.photometric == _YCBCR and page.compression == _JPEG
    if page.photometric in (_SEPARATED, _YCBCR, _CIELAB) and not decoded_to_rgb:
        raise DataError(f"'{path}' has the colour space {page.photometric.name}; convert it to RGB")


def _palette(page: Any) -> Array | None:
    if page.photometric != _PALETTE or page.colormap is None:
        return None
    colours: Array = np.asarray(page.colormap) // 256  # TIFF stores 16 bits per channel
    return colours.T.astype(np.uint8)


def _has_georeference(page: Any) -> bool:
    return any(tag in page.tags for tag in _GEOTIFF_TAGS)


def page_orientation(page: Any) -> int:
    """EXIF orientation of a tifffile page, 1..8."""
    if _has_georeference(page):  # GIS software ignores the tag; rotated pixels would not match the georeference
        return 1
    tag = page.tags.get(_ORIENTATION_TAG)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
