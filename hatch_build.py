"""Long description of the package: README.md with links that work outside the repository."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\]\([^()]*\))*)\]\((?P<target>[^()\s]+)\)")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:|#")


def absolute_links(text: str, pages: str = "", images: str = "") -> str:
    """Make the relative links of a Markdown text absolute.

    Args:
        text: with links relative to the root of the repository.
        pages: address of that root for links. Empty: such a link becomes its text.
        images: address of that root for images. Empty: such an image, and its caption below, are left out.
    """
    if not images:
        text = re.sub(r"^!\[[^\]]*\]\((?![a-z]+:)[^)]*\)\n\n(\*[^*\n]+\*\n\n)?", "", text, flags=re.MULTILINE)

    def replaced(match: re.Match[str]) -> str:
        image, label, target = match["image"], _LINK.sub(replaced, match["text"]), match["target"]
        if _ABSOLUTE.match(target):
            return f"{image}[{label}]({target})"
        root = images if image else pages
        return f"{image}[{label}]({root.rstrip('/')}/{target})" if root else "" if image else label

    return _LINK.sub(replaced, text)


class LongDescription(MetadataHookInterface):
    """Sets the field ``readme``; the addresses are in pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = absolute_links(readme, self.config.get("pages", ""), self.config.get("images", ""))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
