"""Label Studio's brush strokes: the rle-pack bit stream.

Format: 32 bits the number of values; 5 bits the size of a value - 1; four times 4 bits the size of a length - 1;
then packets of 1 bit (1: one value repeated, 0: a list of values), 2 bits that choose the size of the length, the
length - 1, and the value or the values. Bits run from the highest of each byte.
Source: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, which Label Studio uses.
"""

import numpy as np

from densemble.shapes import Array


class _Bits:
    """Reads numbers of any size in bits, one after the other."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        self._at = 0

    def number(self, size: int) -> int:
        end = self._at + size
        if end > 8 * len(self._code):
            raise ValueError("its brush stroke ends too early")
        first, last = self._at // 8, (end + 7) // 8
        window = int.from_bytes(self._code[first:last], "big") >> (8 * last - end)
        self._at = end
        return window & ((1 << size) - 1)


def decode_brush(code: bytes, length: int) -> Array:
    """The values that a bit stream holds, uint32 ``(length,)``.

    Raises:
        ValueError: the stream holds another number of values, or ends too early.
    """
    bits = _Bits(code)
    count = bits.number(32)
    if count != length:  # before the memory for it is asked for
        raise ValueError(f"its brush stroke holds {count} values, wanted {length}")
    value_size = bits.number(5) + 1
    length_sizes = [bits.number(4) + 1 for _ in range(4)]
    values = np.zeros(length, np.uint32)
    at = 0
    while at < length:
        repeated = bits.number(1)
        end = at + 1 + bits.number(length_sizes[bits.number(2)])
        if end > length:
            raise ValueError("its brush stroke is longer than the image")
        values[at:end] = bits.number(value_size) if repeated else [bits.number(value_size) for _ in range(at, end)]
        at = end
    return values
