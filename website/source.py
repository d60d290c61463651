"""Markdown of the repository as Python-Markdown reads it, with links that stay inside the site."""

import os
import re
from pathlib import Path

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LIST = re.compile(r"(?P<indent> *)(?:[-*]|\d+\.) ")
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def for_site(text: str, page: Path, root: Path, repository: str = "") -> str:
    """Rewrite the text of one page.

    GitHub reads a list or a table directly below a paragraph, and nested lists indented by two spaces. Python-Markdown
    needs an empty line and four spaces. Links to files outside docs lead to the repository, or become plain text.

    Args:
        text: of the page.
        page: its path.
        root: folder of the repository.
        repository: address of the files in the repository, without a slash at the end.
    """
    written: list[str] = []
    for part, is_code in _parts(text):
        if is_code:
            written += part
        else:
            prose = _COMMENT.sub("", "\n".join(part))
            prose = _LINK.sub(lambda link: _inside(link, page, root, repository), prose)
            written += _with_empty_lines(prose.split("\n"))
    return "\n".join(written)


def _parts(text: str) -> list[tuple[list[str], bool]]:
    """Lines of prose and of fenced code blocks, in turn."""
    parts: list[tuple[list[str], bool]] = [([], False)]
    for line in text.split("\n"):
        fence = line.lstrip().startswith("```")
        inside = parts[-1][1]
        if fence and not inside:
            if parts[-1][0] and parts[-1][0][-1].strip():
                parts[-1][0].append("")
            parts.append(([line], True))
        else:
            parts[-1][0].append(line)
            if fence:
                parts.append(([], False))
    return parts


def _with_empty_lines(lines: list[str]) -> list[str]:
    """Lines with an empty one before each list and table, and nested lists indented by four spaces."""
    result: list[str] = []
    in_list = False
    for line in lines:
        before = result[-1] if result else ""
        item = _LIST.match(line)
        if item and 2 <= len(item["indent"]) <= 3:
            line = f"    {line.lstrip()}"
        starts_list = item is not None and not in_list
        starts_table = line.startswith("|") and not before.startswith("|")
        if before.strip() and (starts_list or starts_table):
            result.append("")
        in_list = item is not None or (in_list and bool(line.strip()))
        result.append(line)
    return result


def _inside(link: re.Match[str], page: Path, root: Path, repository: str) -> str:
    """A link to a file outside docs, replaced by a link to the repository or by its text."""
    target, _, anchor = link["target"].partition("#")
    if not target or ":" in target:
        return link[0]
    path = Path(os.path.normpath(page.parent / target))
    if path.is_relative_to(root / "docs"):
        return link[0]
    name = path.relative_to(root).as_posix()
    if repository:
        return f"[{link['text']}]({repository}/{name}{'#' if anchor else ''}{anchor})"
    return link["text"] if name in link["text"] else f"{link['text']} (`{name}` in the repository)"
