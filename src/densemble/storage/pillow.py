"""Images that Pillow decodes: PNG, JPEG, BMP, WebP and GIF.

Values are kept at the file's own depth. Pillow cuts PNG colours of 16 bits to 8; here their high and low bytes are
read in turn. torchvision reads them too, but its decoders are deprecated since 0.29.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage.pixels import Pixels, SeveralImages, UnusableMap
from densemble.storage.runs import atomic_path

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")  # others stay shut: Pillow runs Ghostscript for some
_EXIF_ORIENTATION = 0x0112
_PNG_NOTES = (b"XML:com.adobe.xmp", b"Raw profile type exif")
# Pillow's unpackers that scale grey of few bits to 0..255: bits, and what one step became.
_FEW_BITS = {"L;2": (2, 85), "L;4": (4, 17)}
# Pillow's unpackers that keep the high bytes of 16-bit colours -> those that keep the low bytes.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """An image whose header was read.

    Raises:
        DataError: no image, damaged, or too large.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"'{path}' is not an image that can be read; replace or remove it") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"'{path}' is too large: {error}; cut it into tiles or save it as TIFF") from error
    except DataError:
        raise
    except Exception as error:  # damage in a chunk raises struct, zlib and syntax errors too
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read '{path}': {reason}; the file is damaged or cut short: copy it again") from error


def decode_image(path: Path) -> Pixels:
    """The numbers of an image, as the file holds them.

    Raises:
        DataError: damaged or cut short; several frames.
    """
    with opened(path) as image:
        if image.format in ("PNG", "WEBP") and (frames := getattr(image, "n_frames", 1)) > 1:
            raise SeveralImages(f"'{path}' is an animation of {frames} frames; save each in a file of its own")
        storage = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
        image.load()
        if image.format == "GIF" and getattr(image, "n_frames", 1) > 1:
            raise UnusableMap(f"'{path}' is an animation; save each of its frames in a file of its own")
        turn = _orientation_of(image)
        if image.format == "GIF" and image.mode == "P":
            indices, palette = np.asarray(image), _palette(image)
            used = palette[np.unique(indices)]
            if (used == used[:, :1]).all():  # programs order a GIF's greys anew in each file: they count, not indices
                return Pixels(palette[indices][:, :, :1], orientation=turn)
        if image.mode == "P":
            return Pixels(np.asarray(image)[:, :, None], palette=_palette(image), orientation=turn)
        if storage in _FEW_BITS:
            bits, step = _FEW_BITS[storage]
            return Pixels(np.asarray(image)[:, :, None] // step, bits, orientation=turn)
        if storage in _LOW_BYTES:
            low = _unpacked(path, _LOW_BYTES[storage])
            return Pixels((np.asarray(image).astype(np.uint16) << 8 | low)[:, :, :3], orientation=turn)
        if storage == "LA;16B":  # its four bytes, as if they were R, G, B, A
            high_low = _unpacked(path, "RGBA").astype(np.uint16)
            return Pixels(high_low[:, :, :1] << 8 | high_low[:, :, 1:2], orientation=turn)
        alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
        return Pixels(_eight_bits_or_grey(image), orientation=turn, alpha=alpha)


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
    """The palette, uint8 ``(N, 3)``; black for pixels that point behind its end, as viewers show them."""
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    highest = image.getextrema()[1]
    missing = max(0, int(highest) + 1 - len(colours))  # type: ignore[arg-type]
    return np.concatenate([colours, np.zeros((missing, 3), np.uint8)])


def orientation_in_header(path: Path, image: Image.Image) -> int:
    """The EXIF orientation without decoding: Pillow decodes a whole PNG to look for notes behind its pixels."""
    if image.format == "PNG" and not _has_notes(path):
        return 1
    return _orientation_of(image)


def _has_notes(path: Path) -> bool:
    """Whether a PNG has a chunk that can hold an EXIF orientation."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            start = file.read(min(length, 32))
            if kind == b"eXIf" or start.startswith(_PNG_NOTES):
                return True
            file.seek(length - len(start) + 4, 1)
    return False


def _orientation_of(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block hides no pixel: viewers show the image as it lies
        return 1
    return int(value) if value in range(1, 9) else 1


def write_png(path: Path, pixels: Array) -> None:
    """Writes uint8 ``(H, W)``, uint8 ``(H, W, 3)`` or uint16 ``(H, W)`` as PNG, as a whole or not at all.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    # A photograph repeats nothing: looking for it takes four times as long and saves no byte. Grey maps do repeat.
    options = {"compress_type": zlib.Z_RLE} if pixels.ndim == 3 else {"compress_level": 1}
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, "PNG", **options)
