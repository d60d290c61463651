"""Navigation of the site: sections in a fixed order, pages in the order in which docs/README.md links them."""

import re
from pathlib import Path

SECTIONS = {
    "get-started": "Get started",
    "how-to": "How-to",
    "concepts": "Concepts",
    "reference": "Reference",
    "decisions": "Decisions",
}
"""Folder of each section and its title."""

_LINK = re.compile(r"\]\(([\w./-]+\.md)[)#]")


def title(page: Path) -> str:
    """The first heading of a page.

    Raises:
        ValueError: the page has no heading.
    """
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    raise ValueError(f"{page} has no line that starts with '# '")


def navigation(docs: Path) -> list[dict[str, object]]:
    """The ``nav`` of mkdocs.

    Pages that docs/README.md does not link follow in the order of their titles, so that a new page needs no entry.

    Args:
        docs: folder with README.md and one folder per section.
    """
    linked = _LINK.findall((docs / "README.md").read_text(encoding="utf-8"))
    rank = {page: place for place, page in reversed(list(enumerate(linked)))}
    nav: list[dict[str, object]] = [{"Home": "README.md"}]
    for folder, name in SECTIONS.items():
        pages = [(page.relative_to(docs).as_posix(), title(page)) for page in sorted((docs / folder).glob("*.md"))]
        if folder != "decisions":
            pages.sort(key=lambda entry: (rank.get(entry[0], len(linked)), entry[1].casefold()))
        nav.append({name: [{text: path} for path, text in pages]})
    return nav
