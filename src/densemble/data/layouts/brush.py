"""Decode Label Studio's brush strokes, an rle-pack bit stream.

Header: number of values (32 bits), size of a value - 1 (5 bits), and four sizes of a run length - 1 (4 bits each).
Each packet follows: 1 bit (1: one repeated value, 0: a list of values), 2 bits that index the size of the run length,
the run length - 1, and the value or values. The highest bit of each byte comes first.
Source: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, which Label Studio uses.
"""

import numpy as np

from densemble.shapes import Array


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
