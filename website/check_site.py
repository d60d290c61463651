"""Check a built site: every link and asset resolves, and nothing is loaded from another host."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ASSETS = {"script": "src", "img": "src", "iframe": "src", "source": "src"}
_LOADED = {"stylesheet", "icon", "preload", "preconnect", "modulepreload"}


class _Page(HTMLParser):
    """Identifiers, links and assets of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.identifiers: set[str] = set()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.identifiers |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") in _LOADED:
            self.assets.append(values["href"])
        elif values.get(_ASSETS.get(tag, "")):
            self.assets.append(values[_ASSETS[tag]])


def check(site: Path) -> list[str]:
    """Problems of a built site, one line each.

    Args:
        site: folder with index.html.
    """
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        problems += [f"{name}: loads {url} from another host" for url in page.assets if urlsplit(url).netloc]
        if name == "404.html":  # its addresses start at the root of the server
            continue
        for url in [*page.links, *page.assets]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                problems.append(f"{name}: {url} does not exist")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].identifiers:
                problems.append(f"{name}: {url} has no such heading")
    return problems
