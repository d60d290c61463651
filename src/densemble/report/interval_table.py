"""Tables of values whose intervals are drawn on one common scale."""

from collections.abc import Sequence

from densemble.markup import Markup, escape
from densemble.report.figures import interval_axis, interval_bar
from densemble.report.html_page import Values, strong, table
from densemble.report.ranges import main_range, padded
from densemble.report.rounding import intervals


def interval_table(
    headings: tuple[str, str],
    rows: Sequence[Values],
    further: dict[str, Sequence[str]] | None = None,
    selected: object = None,
    signed: bool = False,
) -> str:
    """Table of values, each above its interval; a value far from all others is an arrow at the edge.

    Args:
        headings: of the names and of the values.
        rows: with ``name`` (text or :class:`Markup`), ``value``, ``low`` and ``high``.
        further: heading -> cells of further columns; empty columns are left out.
        selected: name of the row to mark.
        signed: the values are gains: they have a sign, and the scale contains 0.
    """
    within = _scale_of(rows, signed)
    columns = {name: cells for name, cells in (further or {}).items() if any(cells)}
    names = [strong(f"{row['name']} (selected)") if row["name"] == selected else row["name"] for row in rows]
    drawn = [
        Markup(f"{text}{interval_bar(row.get('value'), row.get('low'), row.get('high'), within)}")
        for text, row in zip(values_with_intervals(rows, "value", signed), rows, strict=True)
    ]
    body = list(zip(names, drawn, *columns.values(), strict=True))
    axis: tuple[object, ...] = ("", interval_axis(within), *("" for _ in columns))
    return table([*headings, *columns], [*body, axis])


def _scale_of(rows: Sequence[Values], signed: bool) -> tuple[float, float]:
    spans = []
    for row in rows:
        ends = [row[key] for key in ("value", "low", "high") if row.get(key) is not None]
        if ends:
            spans.append((min(ends), max(ends)))
    low, high = main_range(spans)
    return padded([low, high, *([0.0] if signed else [])])


def values_with_intervals(rows: Sequence[Values], key: str, signed: bool = False) -> list[Markup]:
    """Cells with a value and, in small type beside it, its interval."""
    return [
        Markup(escape(value) + (f' <span class="spread">{escape(span)}</span>' if span else ""))
        for value, span in intervals(rows, key, signed)
    ]
