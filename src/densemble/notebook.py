"""HTML that notebooks show for objects (``_repr_html_``): text, tables, small images; no scripts, no other files.

Colours are those of the notebook, light or dark. Wide tables scroll inside their frame.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from densemble.markup import Markup, cell_texts, embedded_image, escape, numeric_columns
from densemble.shapes import Array

WIDTH = 160
"""Width of a small image, in pixels of the page."""
_SHARPNESS = 2
_IMAGE = "width:100%;height:auto;display:block"
_CELL = "padding:.2em .7em;border-bottom:1px solid rgba(128,128,128,.35);white-space:nowrap"


def card(title: str, *parts: str) -> str:
    """Return a title above parts of HTML; all text from outside in the parts is escaped.

    Args:
        title: plain text.
        parts: HTML; empty parts are left out.
    """
    body = "".join(f'<div style="margin:.4em 0">{part}</div>' for part in parts if part)
    return f'<div style="max-width:100%;text-align:left"><b>{escape(title)}</b>{body}</div>'


def sentence(text: object) -> str:
    """Return escaped text."""
    return f"<span>{escape(text)}</span>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of text, numbers and :class:`Markup`; columns of numbers are aligned right."""
    texts = cell_texts(rows)
    numeric = numeric_columns(texts, len(columns)) if texts else [False] * len(columns)
    styles = [f"{_CELL};text-align:{'right' if number else 'left'}" for number in numeric]
    head = _row("th", styles, [escape(name) for name in columns])
    body = "".join(_row("td", styles, row) for row in texts)
    frame = "border-collapse:collapse;margin:0;font-size:.92em"
    return f'<div style="overflow-x:auto"><table style="{frame}">{head}{body}</table></div>'


def facts(values: Mapping[str, object]) -> str:
    """Return names with their values, one per line; values that are ``None`` are left out."""
    lines = (
        f"<div>{escape(name)}: {value if isinstance(value, Markup) else escape(value)}</div>"
        for name, value in values.items()
        if value is not None
    )
    return "".join(lines)


def images(captioned: Iterable[tuple[str, Array]], width: int = WIDTH) -> str:
    """Return small images with captions, in rows that break.

    Args:
        captioned: caption and uint8 pixels ``(H, W)`` or ``(H, W, 3)``.
        width: largest width of an image in the page.
    """
    figures = "".join(
        f'<figure style="margin:0;width:{width}px">{embedded_image(pixels, caption, _SHARPNESS * width, _IMAGE)}'
        f'<figcaption style="font-size:.85em;overflow-wrap:anywhere">{escape(caption)}</figcaption></figure>'
        for caption, pixels in captioned
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:.6em">{figures}</div>' if figures else ""


def grey(values: Array, low: float | None = None, high: float | None = None) -> Array:
    """Values ``(H, W)`` -> uint8 ``(H, W)``: black for ``low`` and below, white for ``high``; NaN is black.

    Args:
        values: values.
        low, high: default: the least and the largest value.
    """
    known = values[np.isfinite(values)]
    low = float(known.min()) if low is None and known.size else low or 0.0
    high = float(known.max()) if high is None and known.size else high or 1.0
    share = (np.nan_to_num(values.astype(np.float32), nan=low) - low) / max(high - low, 1e-12)
    shade: Array = (share.clip(0, 1) * 255).round().astype(np.uint8)
    return shade


def _row(tag: str, styles: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row of cells, which are escaped."""
    parts = [f'<{tag} style="{style}">{cell}</{tag}>' for style, cell in zip(styles, cells, strict=True)]
    return f"<tr>{''.join(parts)}</tr>"
