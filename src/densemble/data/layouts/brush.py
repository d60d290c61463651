"""Encode and decode Label Studio's brush strokes, an rle-pack bit stream.

Header: number of values (32 bits), size of a value - 1 (5 bits), and four sizes of a run length - 1 (4 bits each).
Each packet follows: 1 bit (1: one repeated value, 0: a list of values), 2 bits that index the size of the run length,
the run length - 1, and the value or values. The highest bit of each byte comes first.
Source: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, which Label Studio uses.
"""

import numpy as np

from densemble.shapes import Array

_LENGTH_SIZES = (3, 4, 8, 16)  # bits of a run length, as Label Studio encodes them


class _Bits:
    """Read consecutive unsigned integers of any number of bits."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        self._position = 0

    def number(self, size: int) -> int:
        end = self._position + size
        if end > 8 * len(self._code):
            raise ValueError("its brush stroke ends too early")
        first, last = self._position // 8, (end + 7) // 8
        window = int.from_bytes(self._code[first:last], "big") >> (8 * last - end)
        self._position = end
        return window & ((1 << size) - 1)


def decode_brush(code: bytes, length: int) -> Array:
    """Decode a bit stream to uint32 ``(length,)``.

    Raises:
        ValueError: the stream holds a different number of values or ends too early.
    """
    bits = _Bits(code)
    count = bits.number(32)
    if count != length:  # checked before memory is allocated
        raise ValueError(f"its brush stroke holds {count} values, expected {length}")
    value_size = bits.number(5) + 1
    length_sizes = [bits.number(4) + 1 for _ in range(4)]
    values = np.zeros(length, np.uint32)
    start = 0
    while start < length:
        repeated = bits.number(1)
        end = start + 1 + bits.number(length_sizes[bits.number(2)])
        if end > length:
            raise ValueError("its brush stroke is longer than the image")
        run = bits.number(value_size) if repeated else [bits.number(value_size) for _ in range(start, end)]
        values[start:end] = run
        start = end
    return values


def encode_brush(region: Array) -> bytes:
    """Encode a region, bool ``(H, W)``, as RGBA values: 255 in all four channels inside, 0 outside."""
    flat = region.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    bits = [f"{4 * flat.size:032b}{8 - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_SIZES)]
    for start, length in zip(starts.tolist(), np.diff(starts, append=flat.size).tolist(), strict=True):
        value = "11111111" if flat[start] else "00000000"
        left = 4 * length
        while left:
            run = min(left, 1 << _LENGTH_SIZES[-1])
            index = next(index for index, size in enumerate(_LENGTH_SIZES) if run <= 1 << size)
            bits.append(f"1{index:02b}{run - 1:0{_LENGTH_SIZES[index]}b}{value}")
            left -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
