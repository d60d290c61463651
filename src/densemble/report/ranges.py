"""Ranges of axes that a single outlier does not squash."""

from collections.abc import Sequence

Point = tuple[float, float]
_SQUASHED = 4.0
"""An outlier is left out of the range if the range is at least this many times as wide with it."""
_MOST_LEFT_OUT = 0.25
_FEWEST = 4


def padded(values: Sequence[float], share: float = 0.08) -> Point:
    """Range of the values, extended at both ends by a share of its width."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high - low) * share or abs(high) * share or share
    return low - margin, high + margin


def main_range(spans: Sequence[Point], squashed: float = _SQUASHED) -> Point:
    """Range of most of the spans: up to a quarter of them is left out if the others would be squashed otherwise.

    The narrowest range that holds all but k spans is used, for the smallest k > 0 that makes the range ``squashed``
    times as narrow; the range of all spans if there is no such k, or if there are fewer than four spans.

    Args:
        spans: lowest and highest value of each row; equal for a row of one value.
        squashed: ratio of the widths.

    Returns:
        Lowest and highest value; 0 and 1 without spans.
    """
    if not spans:
        return 0.0, 1.0
    whole = min(low for low, _ in spans), max(high for _, high in spans)
    if len(spans) < _FEWEST:
        return whole
    for left_out in range(1, int(len(spans) * _MOST_LEFT_OUT) + 1):
        low, high = _narrowest(sorted(spans), left_out)
        if high > low and whole[1] - whole[0] >= squashed * (high - low):
            return low, high
    return whole


def _narrowest(spans: Sequence[Point], left_out: int) -> Point:
    """Narrowest range of all but ``left_out`` sorted spans; each of these lies at one of the two ends."""
    ranges = []
    for below in range(left_out + 1):
        kept = sorted(spans[below:], key=lambda span: span[1])[: len(spans) - left_out]
        ranges.append((min(low for low, _ in kept), kept[-1][1]))
    return min(ranges, key=lambda ends: ends[1] - ends[0])


def main_values(values: Sequence[float], squashed: float = _SQUASHED) -> Point:
    """:func:`main_range` of single values."""
    return main_range([(value, value) for value in values], squashed)
