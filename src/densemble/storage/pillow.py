"""Read PNG, JPEG, BMP, WebP and GIF with Pillow, and write PNG.

Values keep the bit depth of the file. Pillow reduces 16-bit PNG colours to 8 bits, so their high and low bytes are
read separately. torchvision reads 16 bits, but its decoders are deprecated since version 0.29.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from densemble.errors import DataError
from densemble.input_files import open_regular
from densemble.shapes import Array
from densemble.storage.decoding_memory import After, decoding_memory, image_memory
from densemble.storage.pixels import Pixels, SeveralImages, UnusableMap, decoding
from densemble.storage.writing import atomic_binary

# Only these formats: Pillow runs Ghostscript for some others. Importing a plugin registers it in Image.OPEN.
_PLUGINS = (PngImagePlugin, JpegImagePlugin, BmpImagePlugin, WebPImagePlugin, GifImagePlugin)
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
_BEGINNING = 16
_START_OF_SCAN, _END_OF_IMAGE, _MOST_SCANS = b"\xff\xda", b"\xff\xd9", 500
_WORK_ON_PHOTO = 1.8
_STRIP_PIXELS = 1 << 20
_PALETTE_BYTES = 3 * 256
_EXIF_ORIENTATION = 0x0112
_PNG_METADATA = (b"XML:com.adobe.xmp", b"Raw profile type exif")
# Pillow's unpackers that scale 2-bit and 4-bit grey to 0..255: number of bits and scale factor.
_FEW_BITS = {"L;2": (2, 85), "L;4": (4, 17)}
# Pillow's unpackers for the high bytes of 16-bit colours -> those for the low bytes.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
_GREY_ALPHA = "LA;16B"


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image and read its header.

    Raises:
        DataError: the file is not an image or is damaged.
    """
    damaged = "the file is damaged or cut short: copy it again"
    with decoding(path, damaged), open_regular(path) as file, _header(path, file) as image:
        yield image


def _header(path: Path, file: BinaryIO) -> ImageFile.ImageFile:
    """Read the header as ``Image.open`` does, but leave it to :func:`decode_image` to limit the number of pixels."""
    beginning = file.read(_BEGINNING)
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(beginning) is True:
            file.seek(0)
            image = factory(file, str(path))
            if min(image.size) < 1:
                raise DataError(f"'{path}' has no pixels; save it again")
            return image
    raise DataError(f"'{path}' is not an image that can be read; replace or remove it")


def decode_image(path: Path, after: After = lambda channels, itemsize: 0) -> Pixels:
    """Read the stored values of an image; ``after`` is the memory that the caller needs next.

    Raises:
        DataError: the file is damaged or cut short, takes too much memory, or has several frames.
    """
    with opened(path) as image:
        if image.format in ("PNG", "WEBP") and (frames := getattr(image, "n_frames", 1)) > 1:
            raise SeveralImages(f"'{path}' is an animation of {frames} frames; save each frame in a separate file")
        storage = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
        if image.info.get("progressive"):
            _require_few_scans(path)
        needed = _needed_bytes(image, storage, after)
        if needed > image_memory() and _is_plain_jpeg(image):
            return _large_jpeg(path, image, after)
        with decoding_memory(path, needed):
            if storage == _GREY_ALPHA:  # read the four bytes of a pixel as if they were R, G, B, A
                image.tile = [tile._replace(args="RGBA") for tile in image.tile]
            image.load()
            if image.format == "GIF" and getattr(image, "is_animated", False):
                raise UnusableMap(f"'{path}' is an animation; save each frame in a separate file")
            return _pixels(path, image, storage)


def _is_plain_jpeg(image: ImageFile.ImageFile) -> bool:
    is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
    return is_jpeg and image.mode in ("L", "RGB") and not image.info.get("progressive")


def _large_jpeg(path: Path, image: ImageFile.ImageFile, after: After) -> Pixels:
    """Decode a large photo with imagecodecs, to the same values: Pillow takes 7 bytes per pixel, this decoder 3."""
    import imagecodecs

    channels = len(image.getbands())
    # The caller's work on the values counts, too; photos of 108 million pixels, as of phones, stay below the limit.
    needed = int(image.width * image.height * max(channels + after(channels, 1), _WORK_ON_PHOTO * channels))
    with decoding_memory(path, needed + path.stat().st_size):
        with open_regular(path) as file:
            content = file.read()
        if content.rfind(_END_OF_IMAGE) < content.rfind(_START_OF_SCAN):  # imagecodecs fills missing rows with grey
            raise DataError(f"'{path}' is cut short; copy it again")
        values: Array = imagecodecs.jpeg8_decode(content)
        return Pixels(values.reshape(image.height, image.width, channels), orientation=_exif_orientation(image))


def _require_few_scans(path: Path) -> None:
    """Check the number of scans of a progressive JPEG: each one passes over all pixels, however few bytes it has."""
    with open_regular(path) as file:
        count = sum(part.count(_START_OF_SCAN) for part in iter(lambda: file.read(1 << 20), b""))
    if count > _MOST_SCANS:
        raise DataError(f"'{path}' has {count} scans, more than {_MOST_SCANS}; it is damaged: save it again")


def _needed_bytes(image: ImageFile.ImageFile, storage: str, after: After) -> int:
    """Bytes in memory while an image is decoded: Pillow's pixels, the array, and what the decoder needs itself."""
    channels = len(image.getbands())
    itemsize = 4 if image.mode in ("I", "F") else 2 if image.mode.startswith("I;") or storage in _LOW_BYTES else 1
    pillow = 4 if channels > 1 or itemsize == 4 else itemsize
    result = channels * itemsize
    decoder = 0
    if image.format == "WEBP":
        decoder = 9  # two canvases of RGBA, and rows
    elif image.format == "GIF":
        decoder = 4  # the previous frame, and colours
    elif image.info.get("progressive") or image.mode == "CMYK":
        decoder = 2 * channels  # coefficients, or the converted image
    if storage in _LOW_BYTES:
        pillow, itemsize, result = 8, 2, 6  # high bytes and low bytes
    elif storage == _GREY_ALPHA:
        itemsize, result = 2, 2
    shown = 1 if image.mode in ("1", "L", "P", "I;16", "I;16B", "LA", "PA") else min(channels, 3)
    return image.width * image.height * max(pillow + decoder + result, result + after(shown, itemsize))


def _pixels(path: Path, image: ImageFile.ImageFile, storage: str) -> Pixels:
    """The stored values of a decoded image."""
    orientation = _exif_orientation(image)
    if image.format == "GIF" and image.mode == "P":
        indices, palette = _array(image), _palette(image)
        used = palette[np.flatnonzero(image.histogram())]
        if (used == used[:, :1]).all():  # the palette order of greys differs between GIF files, so greys are read
            return Pixels(palette[:, 0][indices], orientation=orientation)
    if image.mode == "P":
        return Pixels(_array(image), palette=_palette(image), orientation=orientation)
    if storage in _FEW_BITS:
        bits, step = _FEW_BITS[storage]
        return Pixels(_array(image) // step, bits, orientation=orientation)
    if storage in _LOW_BYTES:
        return Pixels(_sixteen_bits(path, image, storage), orientation=orientation)
    if storage == _GREY_ALPHA:
        grey = np.empty((image.height, image.width, 1), np.uint16)
        for rows, part in _strips(image):
            grey[rows] = part[..., :1].astype(np.uint16) << 8 | part[..., 1:2]
        return Pixels(grey, orientation=orientation)
    alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
    return Pixels(_eight_bits_or_grey(image), orientation=orientation, alpha=alpha)


def _sixteen_bits(path: Path, high: Image.Image, storage: str) -> Array:
    """Colours of 16 bits without alpha; Pillow decodes one byte of each sample at a time."""
    with opened(path) as low:
        low.tile = [tile._replace(args=_LOW_BYTES[storage]) for tile in low.tile]
        low.load()
        values = np.empty((high.height, high.width, 3), np.uint16)
        for rows, part in _strips(high):
            values[rows] = part[..., :3]
        values <<= 8
        for rows, part in _strips(low):
            values[rows] |= part[..., :3]
        return values


def _array(image: Image.Image, channels: int | None = None) -> Array:
    """The first channels of an image, ``(H, W, C)`` in native byte order; ``np.asarray`` takes twice the memory."""
    values: Array | None = None
    for rows, part in _strips(image):
        if values is None:
            shape = (image.height, image.width, channels or part.shape[2])
            values = np.empty(shape, part.dtype.newbyteorder("="))
        values[rows] = part[..., : values.shape[2]]
    assert values is not None
    return values


def _strips(image: Image.Image) -> Iterator[tuple[slice, Array]]:
    """Yield the rows of an image in parts, ``(h, W, C)``."""
    count = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, count):
        bottom = min(top + count, image.height)
        is_whole = count >= image.height
        part = np.asarray(image if is_whole else image.crop((0, top, image.width, bottom)))
        yield slice(top, bottom), part if part.ndim == 3 else part[:, :, None]


def _eight_bits_or_grey(image: Image.Image) -> Array:
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    has_alpha = image.mode in ("LA", "La", "RGBA", "RGBa", "RGBX", "PA")
    return _array(image, len(image.getbands()) - 1 if has_alpha else None)


def _palette(image: Image.Image) -> Array:
    """The palette, uint8 ``(N, 3)``; indices behind its end become black, as in image viewers."""
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    highest = image.getextrema()[1]
    missing = max(0, int(highest) + 1 - len(colours))  # type: ignore[arg-type]
    return np.concatenate([colours, np.zeros((missing, 3), np.uint8)])


def orientation_in_header(path: Path, image: Image.Image) -> int:
    """Read the EXIF orientation without decoding.

    Pillow decodes a whole PNG to search for metadata after the pixels, so PNG chunks are searched here first.
    """
    return 1 if image.format == "PNG" and not _has_png_metadata(path) else _exif_orientation(image)


def _has_png_metadata(path: Path) -> bool:
    """Whether a PNG has a chunk that can hold an EXIF orientation."""
    with open_regular(path) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, chunk_type = struct.unpack(">I4s", head)
            start = file.read(min(length, 32))
            if chunk_type == b"eXIf" or start.startswith(_PNG_METADATA):
                return True
            file.seek(length - len(start) + 4, 1)
    return False


def _exif_orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # the pixels are intact if only the EXIF block is damaged; viewers ignore it too
        return 1
    return int(value) if value in range(1, 9) else 1


def write_png(path: Path, pixels: Array, palette: Array | None = None) -> None:
    """Write uint8 ``(H, W)``, uint8 ``(H, W, 3)`` or uint16 ``(H, W)`` as PNG atomically.

    Args:
        path: output file.
        pixels: values.
        palette: colours that viewers show for the values of uint8 ``(H, W)``, uint8 ``(N, 3)``, N > the highest value.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    # Photos have no repeated sequences: searching for them takes four times as long and saves nothing. Maps have.
    options = {"compress_type": zlib.Z_RLE} if pixels.ndim == 3 else {"compress_level": 1}
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if palette is not None:
        # With at most 16 colours, Pillow writes pixels of 4 bits or less, which torchvision does not unpack.
        image.putpalette(palette.tobytes().ljust(_PALETTE_BYTES, b"\0"))
    with atomic_binary(path) as file:
        image.save(file, "PNG", **options)
