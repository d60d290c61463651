"""Parser for the tags of an HTML page."""

from html.parser import HTMLParser

VOID_TAGS = {"img", "meta", "br", "wbr"}


class Tags(HTMLParser):
    """Collects tags and addresses, and checks that tags are closed in the right order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.alts += [dict(attrs).get("alt") or "" for _ in attrs[:1] if tag == "img"]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
