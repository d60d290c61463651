"""The one door to TIFF files: one image, all bands, where there is data, and back."""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import DataError, ResourceError
from densemble.shapes import Array, Size
from densemble.storage.pixels import Pixels, SeveralImages, both, require_numbers, require_plausible, turned
from densemble.storage.validity import NODATA_TAG, differs_from_nodata, mask_file, mask_pages, nodata_of, nodata_text

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, either byte order
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated
_MINISWHITE, _PALETTE, _SEPARATED, _YCBCR, _CIELAB = 0, 3, 5, 6, 8
_UNCOMPRESSED, _JPEG = 1, 7
_ORIENTATION_TAG = 274
_SHOWN = 5
_ONE_IMAGE = "save each image in a file of its own, or the channels of one image in one page"
_TILE_LEVEL = 4  # of deflate: level 6 takes a quarter longer for 1 % less
_GEOTIFF_TAGS = (33550, 33922, 34264, 34735)  # pixel scale, tie points, transformation, keys
_GEOTIFF_PARAMETERS = (34736, 34737)  # numbers and texts that the keys point into


def read_page(path: Path) -> Pixels:
    """The image of a TIFF: its full resolution, not its pyramid; alpha is left out.

    Grey pages of one size are its channels, as OME and ImageJ store them (axis C).

    Raises:
        SeveralImages: pages that are no channels of one image.
        DataError: absent, damaged, or in a colour space other than grey, RGB and palette.
    """
    with _opened(path) as file:
        page = file.pages.first
        require_known_colours(path, page)
        if has_channels_in_pages(file):
            pixels = Pixels(_read_series(path, file.series[0]), orientation=page_orientation(page))
        else:
            pages = image_pages(path, file)
            parts = [_read(path, [part], part.shape, part.axes, part.asarray) for part in pages]
            values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
            pixels = replace(page_pixels(page, values), pages=len(pages))
        masks = [_read(path, [mask], mask.shape, mask.axes, mask.asarray) for mask in mask_pages(file)]
        masks += [read_page(beside).values for beside in [mask_file(path)] if beside is not None]
        for mask in masks:
            pixels = replace(pixels, valid=both(pixels.valid, np.not_equal(mask[..., 0], 0)))
        return pixels


def read_validity(path: Path, turn: bool = True) -> Array | None:
    """Where a file says that it holds data, bool ``(H, W)``; ``None`` where it says nothing of it.

    A TIFF says so by a value for no data, by a mask inside it or in ``NAME.tif.msk``, and a GeoTIFF by its alpha. With
    several channels a pixel counts as soon as one of them holds data.

    Raises:
        DataError: absent or damaged.
    """
    if not _is_tiff(path):
        return None
    with _opened(path) as file:
        page = file.pages.first
        alpha = _lies_on_earth(page) and any(int(sample) in _ALPHA for sample in page.extrasamples)
        if not (alpha or nodata_of(page) is not None or mask_pages(file) or mask_file(path)):
            return None
    return shown_validity(read_page(path), turn)


def shown_validity(pixels: Pixels, turn: bool) -> Array | None:
    """Where there is data in an image, turned as the image is."""
    return turned(pixels.valid, pixels.orientation) if turn and pixels.valid is not None else pixels.valid


def page_pixels(page: Any, values: Array) -> Pixels:
    """Samples ``(h, w, C)`` of a tifffile page, or of a part of it, as an image's; alpha is left out."""
    alpha = sum(int(sample) in _ALPHA for sample in page.extrasamples)
    opaque: Array | None = np.not_equal(values[..., -1], 0) if alpha and _lies_on_earth(page) else None
    colours = values[:, :, : values.shape[2] - alpha]
    return Pixels(
        colours,
        None if values.dtype.kind != "u" or page.bitspersample == values.itemsize * 8 else page.bitspersample,
        _palette(page),
        page.photometric == _MINISWHITE,
        page_orientation(page),
        valid=both(opaque, differs_from_nodata(page, colours)),
    )


def image_pages(path: Path, file: Any) -> list[Any]:
    """The pages that are channels of an open file's image: mostly the first alone.

    Smaller pages are its pyramid or a thumbnail.

    Raises:
        SeveralImages: the others are images of their own.
    """
    first = file.pages.first
    if file.is_imagej or file.is_ome or len(file.pages) == 1:
        stored = file.series[0].levels[0]
        if (count := math.prod(stored.shape) // max(math.prod(first.shape), 1)) > 1:
            raise SeveralImages(f"'{path}' holds {count} pages (axes {stored.axes} {stored.shape}); {_ONE_IMAGE}")
        return [first]
    others = [file.pages[number] for number in range(1, len(file.pages))]
    area = first.imagelength * first.imagewidth
    own = [p for p in others if not (p.is_reduced or p.is_mask) and p.imagelength * p.imagewidth >= area]
    if any(_sort(page) != _sort(first) for page in own) or (own and (first.samplesperpixel > 1 or _palette(first))):
        sizes = ", ".join(f"{page.imagelength}x{page.imagewidth}" for page in [first, *own][:_SHOWN])
        raise SeveralImages(f"'{path}' holds {1 + len(own)} pages ({sizes}); {_ONE_IMAGE}")
    return [first, *own]


def _sort(page: Any) -> tuple[Any, ...]:
    """What pages that are channels of one image have in common."""
    return page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype, page.bitspersample, page.photometric


def has_channels_in_pages(file: Any) -> bool:
    """Whether an open file keeps the channels of its image as pages of their own, as OME and ImageJ do."""
    return bool((file.is_ome or file.is_imagej) and set(file.series[0].axes) == set("CYX"))


def read_bands(path: Path) -> Pixels:
    """All bands or pages of a TIFF that share the first page's size, as channels; nothing counts as alpha.

    Raises:
        DataError: absent, damaged, or with more than one axis besides height and width.
    """
    with _opened(path) as file:
        _require_all_pages(path, file)
        return Pixels(_read_series(path, file.series[0]), orientation=page_orientation(file.pages.first))


def page_header(path: Path) -> tuple[Size, int]:
    """(H, W) of the first page as stored, and its EXIF orientation, without decoding.

    Raises:
        DataError: absent or damaged.
    """
    with _opened(path) as file:
        page = file.pages.first
        return (page.imagelength, page.imagewidth), page_orientation(page)


def page_type(path: Path) -> np.dtype[Any]:
    """The type of the first page's numbers.

    Raises:
        DataError: absent, damaged, or no numbers.
    """
    with _opened(path) as file:
        require_numbers(path, file.pages.first.dtype)
        dtype: np.dtype[Any] = np.dtype(file.pages.first.dtype)
        return dtype


def is_geotiff(path: Path) -> bool:
    """Whether a file is a TIFF with GeoTIFF tags.

    Raises:
        DataError: absent, or a damaged TIFF.
    """
    if not _is_tiff(path):
        return False
    with _opened(path) as file:
        return _lies_on_earth(file.pages.first)


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) in SIGNATURES
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from error


def geotiff_tags(path: Path) -> dict[int, Any]:
    """The tags that say where a TIFF lies on Earth, by their number: float64, uint16 or text; none where it has none.

    GDAL's value for no data is not among them: it speaks of the image's numbers, and would hide a class of a map.

    Raises:
        DataError: absent or a damaged TIFF.
    """
    with _opened(path) as file:
        tags = file.pages.first.tags
        return {code: tags[code].value for code in (*_GEOTIFF_TAGS, *_GEOTIFF_PARAMETERS) if code in tags}


def encode_tile(tile: Array) -> bytes:
    """A tile ``(h, w)`` as differences between neighbours in a row (:func:`predictor_of`), compressed by deflate."""
    import imagecodecs

    encode = imagecodecs.floatpred_encode if tile.dtype.kind == "f" else imagecodecs.delta_encode
    return bytes(imagecodecs.deflate_encode(encode(tile, axis=-1).tobytes(), level=_TILE_LEVEL))


def predictor_of(dtype: np.dtype[Any]) -> int:
    """The number under which TIFF knows what :func:`encode_tile` does before it compresses."""
    return 3 if dtype.kind == "f" else 2


def write_bands(path: Path, bands: Array, nodata: float | None = None) -> None:
    """Writes ``(H, W)`` or ``(K, H, W)`` as one page with K bands, compressed by deflate.

    ``nodata`` is the number that stands for no data in it.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    import tifffile

    layout = {"planarconfig": "separate"} if len(bands) > 1 and bands.ndim == 3 else {}
    tags = [] if nodata is None else [(NODATA_TAG, "s", 0, nodata_text(nodata), True)]
    options = {"photometric": "minisblack", "compression": "zlib", "metadata": None, "extratags": tags, **layout}
    try:
        tifffile.imwrite(path, bands, **options)
    except OSError as error:
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another folder") from error


def open_file(path: Path) -> Any:
    """An open ``tifffile.TiffFile``; the caller closes it, and reads from it inside :func:`reading`.

    Raises:
        DataError: absent or damaged.
    """
    import tifffile

    with reading(path):
        return tifffile.TiffFile(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever tifffile and its decoders raise into a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # tifffile lets its decoders' own errors through
        if "imagecodecs" in str(error):
            raise DataError(
                f"cannot read '{path}': {error}; pip install imagecodecs, or save it with deflate"
            ) from error
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read '{path}': {reason}; the file is damaged or no TIFF: copy it again") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with reading(path), open_file(path) as file:
        yield file


def _require_all_pages(path: Path, file: Any) -> None:
    """Refuses a chain of pages that breaks off: tifffile logs it and goes on with the pages that are left."""
    offset_format, count_format = ("Q", "Q") if file.is_bigtiff else ("I", "H")
    entry_size = 20 if file.is_bigtiff else 12
    handle, last = file.filehandle, file.pages[len(file.pages) - 1]
    handle.seek(last.offset)
    (entries,) = struct.unpack(file.byteorder + count_format, handle.read(struct.calcsize(count_format)))
    handle.seek(entries * entry_size, 1)
    (following,) = struct.unpack(file.byteorder + offset_format, handle.read(struct.calcsize(offset_format)))
    if following:
        raise DataError(f"'{path}' is cut short behind page {len(file.pages)}; copy it again")


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
    require_plausible(path, claimed, stored)
    require_all_bytes(path, pages)
    complete = all(first.databytecounts)  # GDAL leaves out empty tiles
    if first.compression == _UNCOMPRESSED and complete and math.prod(shape) * first.bitspersample > stored * 8:
        raise DataError(
            f"'{path}' claims {claimed} bytes of pixels in a file of {stored}; it is damaged: copy it again"
        )
    values = np.asarray(decode())
    return _by_channel(path, values.astype(values.dtype.newbyteorder("="), copy=False), axes)


def require_all_bytes(path: Path, pages: Sequence[Any]) -> None:
    """Refuses a file that ends before the pixels of its pages do.

    Raises:
        DataError: it does.
    """
    stored = path.stat().st_size
    for page in pages:
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        if max((offset + count for offset, count in segments), default=0) > stored:
            raise DataError(f"'{path}' is cut short: it ends before its pixels do; copy it again")


def _by_channel(path: Path, values: Array, axes: str) -> Array:
    """Axes as tifffile names them (``SYX``, ``QYX``, ``ZYXS``) -> ``(H, W, C)``."""
    kept = [index for index, axis in enumerate(axes) if axis in "YX" or values.shape[index] != 1]
    values, named = values.reshape([values.shape[index] for index in kept]), "".join(axes[index] for index in kept)
    others = [index for index, axis in enumerate(named) if axis not in "YX"]
    if len(others) > 1:
        raise DataError(f"'{path}' has the axes {axes} {values.shape}; save one channel axis beside height and width")
    return np.moveaxis(values, others[0], -1) if others else values[:, :, None]


def require_known_colours(path: Path, page: Any) -> None:
    """Refuses a page in a colour space other than grey, RGB and palette.

    Raises:
        DataError: CMYK, CIELAB, or YCbCr that its decoder leaves as it is.
    """
    decoded_to_rgb = page.photometric == _YCBCR and page.compression == _JPEG
    if page.photometric in (_SEPARATED, _YCBCR, _CIELAB) and not decoded_to_rgb:
        raise DataError(f"'{path}' has the colour space {page.photometric.name}; convert it to RGB")


def _palette(page: Any) -> Array | None:
    if page.photometric != _PALETTE or page.colormap is None:
        return None
    colours: Array = np.asarray(page.colormap) // 256  # TIFF stores 16 bits a colour
    return colours.T.astype(np.uint8)


def _lies_on_earth(page: Any) -> bool:
    return any(tag in page.tags for tag in _GEOTIFF_TAGS)


def page_orientation(page: Any) -> int:
    """The EXIF orientation of a tifffile page, 1..8."""
    if _lies_on_earth(page):  # geographic software ignores the tag; turned pixels would leave their georeference
        return 1
    tag = page.tags.get(_ORIENTATION_TAG)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
