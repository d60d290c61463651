"""Numbers as text, no more precise than they are."""

import math
from collections.abc import Sequence
from typing import Any

_MOST_DECIMALS = 6


def numbers(values: Sequence[float | None], digits: int = 3, signed: bool = False) -> list[str]:
    """Numbers that stand below one another: the same decimals for all, so that the largest has ``digits`` digits.

    Args:
        values: ``None`` and what is not finite become an empty text.
        digits: significant ones of the largest.
        signed: with a plus before what is positive.
    """
    known = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    largest = math.floor(math.log10(max(known))) if known else 0
    decimals = min(max(digits - 1 - largest, 0), _MOST_DECIMALS)
    sign = "+" if signed else ""
    return [
        "" if value is None or not math.isfinite(value) else f"{value:{sign}.{decimals}f}" if value else "0"
        for value in values
    ]


def number(value: float | None, digits: int = 3) -> str:
    """One number with ``digits`` significant digits."""
    return numbers([value], digits)[0]


def intervals(rows: Sequence[dict[str, Any]], key: str, signed: bool = False) -> list[tuple[str, str]]:
    """Each row's value and its ``low to high``, empty where it has none, with the same decimals for all.

    Args:
        rows: each with ``key``, ``low`` and ``high``, which may be absent or ``None``.
        key: of the value.
        signed: with a plus before what is positive.
    """
    texts = numbers([row.get(name) for row in rows for name in (key, "low", "high")], signed=signed)
    triples = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
    return [(value, f"{low} to {high}" if low and high else "") for value, low, high in triples]


def gain(values: dict[str, Any]) -> str:
    """A difference with its interval: ``+0.0100 (+0.0020 to +0.0180)``."""
    [(value, span)] = intervals([values], "value", signed=True)
    return f"{value} ({span})" if span else value


def plain(value: Any) -> str:
    """Any plain value as text: numbers rounded, lists and dicts written out."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return str(value)
