"""Number of pixels of an image inside a TIFF: a strip or tile may be a whole JPEG, PNG, WebP, JPEG 2000, ... file.

Its header has a size of its own, which the decoders allocate, whatever the TIFF says.
"""

import struct
from collections.abc import Callable

_JPEG_SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JXL_RATIOS = ((1, 1), (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def embedded_pixels(content: bytes) -> int | None:
    """Height times width in the header of an encoded image; ``None`` for a format that is not known.

    Raises:
        struct.error, IndexError: the header is cut short.
    """
    for signature, read in _HEADERS.items():
        if content.startswith(signature):
            return read(content)
    return None


def _jpeg(content: bytes) -> int | None:
    position = 2
    while position + 9 <= len(content):
        if content[position] != 0xFF:
            return None
        code = content[position + 1]
        if code in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", content, position + 5)
            return int(height * width)
        if code == 0xFF or 0xD0 <= code <= 0xD9:  # fill bytes, and markers without content
            position += 1 if code == 0xFF else 2
        else:
            position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    return None


def _png(content: bytes) -> int:
    width, height = struct.unpack_from(">II", content, 16)
    return int(height * width)


def _webp(content: bytes) -> int | None:
    kind = content[12:16]
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        return int(((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1))
    if kind == b"VP8X":
        sides = [int.from_bytes(content[start : start + 3], "little") + 1 for start in (24, 27)]
        return sides[0] * sides[1]
    width, height = struct.unpack_from("<HH", content, 26)
    return int((width & 0x3FFF) * (height & 0x3FFF))


def _jpeg_2000(content: bytes) -> int | None:
    start = content.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", content, start + 8)
    return int(max(right - left, 0) * max(bottom - top, 0))


def _jpeg_xl(content: bytes) -> int | None:
    start = content.find(b"\xff\x0a")
    if start < 0:
        return None
    bits, position = int.from_bytes(content[start + 2 : start + 18], "little"), 0

    def take(count: int) -> int:
        nonlocal position
        value = bits >> position & ((1 << count) - 1)
        position += count
        return value

    is_small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    width = side() if ratio == 0 else height * _JXL_RATIOS[ratio][0] // _JXL_RATIOS[ratio][1]
    return height * width


def _jpeg_xr(content: bytes) -> int | None:
    start = struct.unpack_from("<I", content, 4)[0]
    sides = {}
    for number in range(struct.unpack_from("<H", content, start)[0]):
        code, kind = struct.unpack_from("<HH", content, start + 2 + 12 * number)
        sides[code] = struct.unpack_from("<H" if kind == 3 else "<I", content, start + 10 + 12 * number)[0]
    return int(sides[0xBC80] * sides[0xBC81]) if {0xBC80, 0xBC81} <= sides.keys() else None


def _lerc(content: bytes) -> int:
    version = struct.unpack_from("<i", content, 6)[0]
    rows, columns = struct.unpack_from("<ii", content, 14 if version >= 3 else 10)
    return int(max(rows, 0) * max(columns, 0))


def _lerc_1(content: bytes) -> int:
    height, width = struct.unpack_from("<ii", content, 18)
    return int(max(height, 0) * max(width, 0))


_HEADERS: dict[bytes, Callable[[bytes], int | None]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"RIFF": _webp,
    b"\xff\x4f\xff\x51": _jpeg_2000,
    b"\0\0\0\x0cjP  ": _jpeg_2000,
    b"\xff\x0a": _jpeg_xl,
    b"\0\0\0\x0cJXL ": _jpeg_xl,
    b"II\xbc": _jpeg_xr,
    b"Lerc2 ": _lerc,
    b"CntZImage ": _lerc_1,
}
