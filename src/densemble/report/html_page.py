"""Self-contained HTML pages without network access or scripts, in light and dark colours and for printing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from densemble.markup import Markup, cell_texts, escape, numeric_columns
from densemble.storage.writing import require_writable, write_text

Values = dict[str, Any]
"""Plain values, as stored in ``analysis.json``."""


_DRAWN = ("<svg", 'class="track"')
"""Marks of cells with a drawing, which are aligned left."""


class Section(NamedTuple):
    """Content of a section.

    Attributes:
        explanation: what it shows, as text; code between backticks.
        body: HTML.
    """

    explanation: str
    body: str


def strong(text: object) -> Markup:
    """Bold text."""
    return Markup(f"<b>{escape(text)}</b>")


def with_code(text: str) -> str:
    """Escape text and mark up code: text between backticks, and ``--set`` with its value."""
    parts = re.sub("`([^`]*)`", r"<code>\1</code>", escape(text)).split("--set ")
    marked = [parts[0]]
    for part in parts[1:]:
        quote = "&#x27;" if part.startswith("&#x27;") else "&quot;" if part.startswith("&quot;") else None
        end = part.find(quote, len(quote)) + len(quote) if quote else len(part.split(" ", 1)[0].rstrip(",;"))
        marked.append(f"<code>--set {part[:end]}</code>{part[end:]}")
    return "".join(marked)


def note(text: str) -> str:
    """Paragraph that explains a figure or table."""
    return f'<p class="note">{with_code(text)}</p>'


def fold(title: str, body: str) -> str:
    """Body behind a fold, under its title; empty without a body."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def swatch(colour: Iterable[int]) -> Markup:
    """Small square in a colour, given as red, green and blue in 0..255."""
    return Markup(f'<span class="key" style="background:rgb({",".join(str(int(part)) for part in colour)})"></span>')


def colour_legend(entries: Iterable[tuple[str, Iterable[int]]]) -> str:
    """Names beside squares in their colours."""
    return "".join(f"<span>{swatch(colour)}{escape(name)}</span> " for name, colour in entries)


def bar(width: float, style: str = "bar") -> str:
    """Horizontal bar of ``width`` rem."""
    return f'<span class="{style}" style="width:{width:.2f}rem"></span>'


def figure(drawing: str, beside: str = "") -> str:
    """A drawing, with a table beside it if there is one."""
    return f'<div class="figures"><figure>{drawing}</figure>{f"<div>{beside}</div>" if beside else ""}</div>'


def split(*parts: str) -> str:
    """Parts side by side if the page is wide enough, else below each other."""
    return f'<div class="split">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


def column_table(columns: Mapping[str, Sequence[object]], title: str = "") -> str:
    """Table given by its columns: heading -> cells; see :func:`table`."""
    return table(list(columns), zip(*columns.values(), strict=True), title)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", tall: bool = False) -> str:
    """Table of text or :class:`Markup`.

    The first column contains row names. Later columns that contain only numbers, without a drawing, are aligned right.

    Args:
        columns: headings.
        rows: cells.
        title: name of the table for screen readers; default: the first heading.
        tall: whether the table scrolls downwards in a frame of limited height.
    """
    texts = cell_texts(rows)
    numeric = [i > 0 and number for i, number in enumerate(numeric_columns(texts, len(columns)))]
    drawn = [any(mark in row[i] for row in texts for mark in _DRAWN) for i in range(len(columns))]
    kinds = [
        ' class="drawn"' if drawing else ' class="number"' if number else ""
        for number, drawing in zip(numeric, drawn, strict=True)
    ]
    head = "".join(f'<th scope="col"{kind}>{_breakable(name)}</th>' for kind, name in zip(kinds, columns, strict=True))
    texts = [[f'<div class="name">{row[0]}</div>', *row[1:]] for row in texts]
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>" for row in texts
    )
    return scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", title or columns[0], tall)


def scrolled(content: str, title: str, tall: bool = False) -> str:
    """Frame in which a table scrolls sideways if it is wider than the page, and downwards if it is ``tall``.

    Args:
        content: the table.
        title: name of the frame for screen readers.
        tall: whether to limit the height of the frame.
    """
    style = "wide tall" if tall else "wide"
    return f'<div class="{style}" tabindex="0" role="group" aria-label="table: {escape(title)}">{content}</div>'


def _breakable(name: str) -> str:
    """Escaped heading with line breaks allowed after underscores, dots and slashes."""
    return re.sub(r"([_./])", r"\1<wbr>", escape(name))


def write_page(path: Path, title: str, body: str) -> None:
    """Write a complete page.

    Args:
        path: HTML file.
        title: plain text.
        body: HTML with all text from outside escaped.

    Raises:
        ResourceError: the file cannot be written.
    """
    require_writable(path.parent)
    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    write_text(path, page)
