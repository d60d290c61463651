"""Format numbers as text with few significant digits."""

import math
from collections.abc import Sequence
from typing import Any

_MOST_DECIMALS = 6


def numbers(values: Sequence[float | None], digits: int = 3, signed: bool = False) -> list[str]:
    """Format a column of numbers, all with the same number of decimals.

    Args:
        values: ``None``, NaN and infinity become an empty text.
        digits: significant digits of the largest number.
        signed: put a plus sign before positive numbers.
    """
    known = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    largest = math.floor(math.log10(max(known))) if known else 0
    decimals = min(max(digits - 1 - largest, 0), _MOST_DECIMALS)
    sign = "+" if signed else ""
    return [
        "" if value is None or not math.isfinite(value) else f"{value:{sign}.{decimals}f}" if value else "0"
        for value in values
    ]


def number(value: float | None) -> str:
    """Format one number with three significant digits."""
    return numbers([value])[0]


def intervals(rows: Sequence[dict[str, Any]], key: str, signed: bool = False) -> list[tuple[str, str]]:
    """Format the value and the interval ``low to high`` of each row, all with the same number of decimals.

    Args:
        rows: each with ``key``, ``low`` and ``high``; an absent or ``None`` field becomes an empty text.
        key: key of the value.
        signed: put a plus sign before positive numbers.
    """
    texts = numbers([row.get(name) for row in rows for name in (key, "low", "high")], signed=signed)
    triples = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
    return [(value, f"{low} to {high}" if low and high else "") for value, low, high in triples]


def gain(values: dict[str, Any]) -> str:
    """Format a gain with its interval: ``+0.0100 (+0.0020 to +0.0180)``."""
    [(value, span)] = intervals([values], "value", signed=True)
    return f"{value} ({span})" if span else value


def plain(value: Any) -> str:
    """Format any plain value: numbers rounded, lists and dicts as comma-separated items."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return str(value)
