"""Self-contained HTML pages: no network, no script, light and dark."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemble.errors import ResourceError
from densemble.storage.runs import require_writable

Array = np.ndarray[Any, Any]
_QUALITY = 82
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c0392b; --care: #b9770e; --good: #1e8449;
  --bar: #4a7fb5; --other: #9bbad8; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff7b6b; --care: #f0b43c; --good: #5fd08a; --bar: #6ea6dc;
  --other: #3c5f80; } body { background: #16181c; color: #dfe3e8; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 1.5rem 1.2rem 4rem; }
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
.remedy { margin: .4rem 0 0; } .remedy b { color: var(--good); }
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
"""


def escape(text: object) -> str:
    """Text that can stand anywhere in a page."""
    return html.escape(str(text))


def embed(pixels: Array, width: int) -> str:
    """An ``<img>`` of uint8 ``(H, W, 3)``, as JPEG of at most ``width`` pixels across, inside the page itself."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.width > width:
        size = (width, max(1, round(image.height * width / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text; cells that begin with a digit or a sign stand to the right."""
    texts = [[escape("" if cell is None else cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in texts) for i in range(len(columns))]
    kinds = [' class="number"' if number else "" for number in numeric]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>" for row in texts
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit() or (cell[0] == "-" and cell[1:2].isdigit())


def write_page(path: Path, title: str, body: str) -> None:
    """Writes a whole page.

    Args:
        path: HTML file.
        title: plain text.
        body: HTML, with everything that is not ours escaped.

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
