"""Parts of HTML that notebooks and report pages share: escaping, embedded images, and cells of tables."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence

import numpy as np

from densemble.shapes import Array

_QUALITY = 82


class Markup(str):
    """HTML that is inserted unchanged: all text from outside is already escaped."""


def escape(text: object) -> str:
    """Escape text for use anywhere in a page; ``None`` is empty."""
    return html.escape("" if text is None else str(text))


def embedded_image(pixels: Array, alt: str, most_width: int, style: str = "") -> Markup:
    """Return ``<img>`` with the pixels inside the page: JPEG, or PNG for one grey channel.

    Args:
        pixels: uint8 ``(H, W)`` or ``(H, W, 3)``.
        alt: what the image shows, in words.
        most_width: wider images are scaled down to this number of pixels.
        style: CSS of the element.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.width > most_width:
        size = (most_width, max(1, round(image.height * most_width / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    kind, options = ("PNG", {}) if image.mode == "L" else ("JPEG", {"quality": _QUALITY})
    image.save(stream, kind, **options)
    data = base64.b64encode(stream.getvalue()).decode()
    sides = f'width="{image.width}" height="{image.height}"'
    styled = f' style="{style}"' if style else ""
    return Markup(f'<img alt="{escape(alt)}" {sides}{styled} src="data:image/{kind.lower()};base64,{data}">')


def cell_texts(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    """Return the cells of a table as HTML: :class:`Markup` unchanged, other values escaped, floats with 4 digits."""
    return [[_cell_text(cell) for cell in row] for row in rows]


def numeric_columns(texts: Sequence[Sequence[str]], count: int) -> list[bool]:
    """Return which of ``count`` columns hold only numbers and empty cells, and are aligned right."""
    return [all(_is_number(row[column]) for row in texts) for column in range(count)]


def _cell_text(cell: object) -> str:
    return cell if isinstance(cell, Markup) else escape(f"{cell:.4g}" if isinstance(cell, float) else cell)


def _is_number(cell: str) -> bool:
    text = re.sub("<[^>]*>", "", cell)
    return not text or text[0].isdigit() or (text[0] in "+-" and text[1:2].isdigit())
