"""Self-contained HTML pages without network access or scripts, in light and dark colours."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import ResourceError
from densemble.shapes import Array
from densemble.storage.runs import require_writable

Values = dict[str, Any]
"""Plain values, as stored in ``analysis.json``."""
_QUALITY = 82
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c0392b; --care: #b9770e; --good: #1e8449;
  --bar: #4a7fb5; --other: #9bbad8; --second: #c2571a; --third: #6b6f76; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff7b6b; --care: #f0b43c; --good: #5fd08a; --bar: #6ea6dc;
  --other: #3c5f80; --second: #f29a5c; --third: #a3a9b2; --page: #16181c; } body { color: #dfe3e8; } }
body { background: var(--page); font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 0 auto;
  padding: 1.5rem 1.2rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.problem { border-left: 4px solid var(--care); background: var(--soft); padding: .6rem .9rem; margin: .7rem 0;
  border-radius: 3px; overflow-wrap: anywhere; }
.problem.error { border-color: var(--bad); } .problem ul { margin: .3rem 0; padding-left: 1.2rem; }
.problem p { margin: .3rem 0; } .problem .remedy { margin: .4rem 0 0; } .remedy b { color: var(--good); }
.error > h3, .verdict.error { color: var(--bad); } .warning > h3, .verdict.warning { color: var(--care); }
.verdict { font-weight: 600; color: var(--good); } .quiet { opacity: .7; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
figure img { width: 100%; display: block; border-radius: 3px; } figure img + img { margin-top: 3px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; } .pair figcaption { grid-column: 1 / 3; }
.pair img + img { margin: 0; }
.bar { display: inline-block; height: .65rem; background: var(--bar); border-radius: 2px; min-width: 1px; }
.bar.other { background: var(--other); } .key { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin: 0 .3rem -1px 0; border: 1px solid var(--line); } .legend > span { margin-right: 1rem; white-space: nowrap; }
.wide td:first-child, .wide th:first-child { position: sticky; left: 0; background: var(--page); }
.name { width: max-content; max-width: min(20rem, 34vw); overflow-wrap: anywhere; } td.number { white-space: nowrap; }
.tall { max-height: 34rem; overflow-y: auto; } .tall th { position: sticky; top: 0; background: var(--page); }
.tall th:first-child { z-index: 1; }
nav { font-size: .9rem; margin: 1rem 0; } nav a { margin-right: .9rem; color: var(--bar); white-space: nowrap; }
.note { opacity: .8; max-width: 46rem; margin: .3rem 0 .8rem; } .small { font-size: .85rem; margin: 0 0 .2rem; }
.overview { font-size: 1.08rem; max-width: 46rem; } .overview p { margin: .5rem 0; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 1.6rem; margin: .6rem 0 1rem; }
.figures > figure { max-width: 100%; overflow-x: auto; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
td svg { max-width: none; margin: .2rem 0; } svg .level { stroke: var(--line); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 1.8; } svg line.first { stroke-width: 1.8; }
svg .first { stroke: var(--bar); } svg .second { stroke: var(--second); } svg .third { stroke: var(--third); }
svg polyline.third { stroke-dasharray: 5 4; } svg .diagonal { stroke: var(--third); stroke-dasharray: 2 3; }
circle.first, rect.first { fill: var(--bar); } circle.second { fill: var(--second); }
circle.third { fill: var(--third); } rect.first { stroke: none; }
.stroke { display: inline-block; width: 1.1rem; height: .2rem; vertical-align: middle; margin-right: .35rem; }
.stroke.first { background: var(--bar); } .stroke.second { background: var(--second); }
.stroke.third { background: var(--third); }
.matrix td { text-align: center; padding: .25rem .5rem; border: 1px solid var(--page); }
.matrix th { font-weight: normal; vertical-align: bottom; padding: .25rem .5rem; border: 0; }
.matrix .upright { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
h3 .quiet, .spread { font-weight: normal; } .spread { font-size: .82rem; opacity: .75; }
.track { display: inline-block; width: 4rem; text-align: left; }
.strip { display: flex; gap: .5rem; overflow-x: auto; margin: .3rem 0 1.4rem; padding-bottom: .3rem; }
.strip figure { flex: 0 0 200px; } details { margin: .5rem 0; } summary { cursor: pointer; }
"""


class Markup(str):
    """HTML that is inserted unchanged: all text from outside is already escaped."""


def escape(text: object) -> str:
    """Escape text for use anywhere in a page."""
    return html.escape(str(text))


def embed(pixels: Array, width: int) -> str:
    """``<img>`` with uint8 pixels ``(H, W, 3)`` embedded as JPEG, scaled down to at most ``width`` pixels."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.width > width:
        size = (width, max(1, round(image.height * width / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}">'


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
    """Paragraph that explains the following figure or table."""
    return f'<p class="note">{escape(text)}</p>'


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


def column_table(columns: Mapping[str, Sequence[object]]) -> str:
    """Table given by its columns: heading -> cells; see :func:`table`."""
    return table(list(columns), zip(*columns.values(), strict=True))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Table of text or :class:`Markup`.

    The first column contains row names. Later columns that contain only numbers are aligned right.
    """
    texts = [[_cell(cell) for cell in row] for row in rows]
    numeric = [i > 0 and all(_is_number(row[i]) for row in texts) for i in range(len(columns))]
    kinds = [' class="number"' if number else "" for number in numeric]
    head = "".join(f"<th{kind}>{_breakable(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    texts = [[f'<div class="name">{row[0]}</div>', *row[1:]] for row in texts]
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>" for row in texts
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(cell: object) -> str:
    return cell if isinstance(cell, Markup) else escape("" if cell is None else cell)


def _breakable(name: str) -> str:
    """Escaped heading with line breaks allowed after underscores, dots and slashes."""
    return re.sub(r"([_./])", r"\1<wbr>", escape(name))


def _is_number(cell: str) -> bool:
    text = re.sub("<[^>]*>", "", cell)
    return not text or text[0].isdigit() or (text[0] in "+-" and text[1:2].isdigit())


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
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another file") from error
