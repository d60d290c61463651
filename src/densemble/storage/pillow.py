"""Read PNG, JPEG, BMP, WebP and GIF with Pillow, and write PNG.

Values keep the bit depth of the file. Pillow reduces 16-bit PNG colours to 8 bits, so their high and low bytes are
read separately. torchvision reads 16 bits, but its decoders are deprecated since version 0.29.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from densemble.errors import DataError
from densemble.input_files import open_regular
from densemble.shapes import Array
from densemble.storage.pixels import Pixels, SeveralImages, UnusableMap, decoding
from densemble.storage.runs import atomic_path

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")  # other formats are disabled: Pillow runs Ghostscript for some
_PALETTE_BYTES = 3 * 256
_EXIF_ORIENTATION = 0x0112
_PNG_METADATA = (b"XML:com.adobe.xmp", b"Raw profile type exif")
# Pillow's unpackers that scale 2-bit and 4-bit grey to 0..255: number of bits and scale factor.
_FEW_BITS = {"L;2": (2, 85), "L;4": (4, 17)}
# Pillow's unpackers for the high bytes of 16-bit colours -> those for the low bytes.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image and read its header.

    Raises:
        DataError: the file is not an image, is damaged, or is too large.
    """
    with decoding(path, "the file is damaged or cut short: copy it again"):
        try:
            with open_regular(path) as file, Image.open(file, formats=_FORMATS) as image:
                yield image
        except UnidentifiedImageError as error:
            raise DataError(f"'{path}' is not an image that can be read; replace or remove it") from error
        except Image.DecompressionBombError as error:
            raise DataError(f"'{path}' is too large: {error}; cut it into tiles or save it as TIFF") from error


def decode_image(path: Path) -> Pixels:
    """Read the stored values of an image.

    Raises:
        DataError: the file is damaged or cut short, or has several frames.
    """
    with opened(path) as image:
        if image.format in ("PNG", "WEBP") and (frames := getattr(image, "n_frames", 1)) > 1:
            raise SeveralImages(f"'{path}' is an animation of {frames} frames; save each frame in a separate file")
        storage = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
        image.load()
        if image.format == "GIF" and getattr(image, "n_frames", 1) > 1:
            raise UnusableMap(f"'{path}' is an animation; save each frame in a separate file")
        orientation = _exif_orientation(image)
        if image.format == "GIF" and image.mode == "P":
            indices, palette = np.asarray(image), _palette(image)
            used = palette[np.unique(indices)]
            if (used == used[:, :1]).all():  # the palette order of greys differs between GIF files, so greys are read
                return Pixels(palette[indices][:, :, :1], orientation=orientation)
        if image.mode == "P":
            return Pixels(np.asarray(image)[:, :, None], palette=_palette(image), orientation=orientation)
        if storage in _FEW_BITS:
            bits, step = _FEW_BITS[storage]
            return Pixels(np.asarray(image)[:, :, None] // step, bits, orientation=orientation)
        if storage in _LOW_BYTES:
            low = _unpacked(path, _LOW_BYTES[storage])
            return Pixels((np.asarray(image).astype(np.uint16) << 8 | low)[:, :, :3], orientation=orientation)
        if storage == "LA;16B":  # read the four bytes of a pixel as if they were R, G, B, A
            high_low = _unpacked(path, "RGBA").astype(np.uint16)
            return Pixels(high_low[:, :, :1] << 8 | high_low[:, :, 1:2], orientation=orientation)
        alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
        return Pixels(_eight_bits_or_grey(image), orientation=orientation, alpha=alpha)


def _unpacked(path: Path, unpacker: str) -> Array:
    with opened(path) as image:
        image.tile = [tile._replace(args=unpacker) for tile in image.tile]
        return np.asarray(image)


def _eight_bits_or_grey(image: Image.Image) -> Array:
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    values = np.asarray(image)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.ndim == 2:
        return values[:, :, None]
    return values[:, :, :-1] if image.mode in ("LA", "La", "RGBA", "RGBa", "RGBX", "PA") else values


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
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", **options)
