"""Find measured figures in a Markdown page that no marker binds to a result file.

The detector is conservative. It reports every number with a unit, every number with two or more decimals, shares such
as ``162 of 162``, and every number in a table whose header names a unit or a metric. Definitions and limits are listed
in figures_allowed.txt. Python, YAML and commands without their comments are not searched.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ALLOWED = Path(__file__).with_name("figures_allowed.txt")
WHOLE_PAGE = "*"
CODE = ("```python", "```yaml")
COMMAND = re.compile(r"(densemble|python|make|pip|[A-Z_]+=\S+) ")

_UNITS = r"ms|s|sec|seconds?|min|minutes?|h|hours?|x|times|%|per ?cent|[kKMG]i?B|[MGT]?FLOPs?(?:/s)?|[MG]MACs?|fps"
_METRICS = (
    "cc|nss|sim|kld|auc_judd|miou|iou|pixel_accuracy|accuracy|ece|classwise_ece|brier|nll|mae|rmse|absrel|delta1|psnr|"
    "ssim|pck|count_mae|auroc|aurc|R²"
)
_NUMBER = r"(?<![\w.,/])[-+]?(?:\d[\d,]*)?\.?\d+"
PATTERNS = [
    re.compile(rf"{_NUMBER}\s?(?:{_UNITS})(?![\w])(?!\s?\d)"),
    re.compile(r"(?<![\w.])[-+]?\d*\.\d{2,}(?![\w.]*\d)"),
    re.compile(r"(?<![\w.])\d+(?:\.\d+)?e-?\d+"),
    re.compile(r"(?<![\w.,])\d[\d,]* of (?:the )?\d[\d,]*"),
    re.compile(rf"\b(?:{_METRICS})\b[^.;|]{{0,20}}?(?<![\w.])\d+\.\d+", re.IGNORECASE),
]
_CELL = re.compile(r"^\W*[-+]?\d[\d,]*(?:\.\d+)?\W*$|[-+]?\d+\.\d")
_HEADER = re.compile(
    rf"\b(?:{_METRICS}|ms|s|seconds|MiB|GB|MACs|GMACs|MMACs|GFLOPs|times|ratio|share)\b|%", re.IGNORECASE
)


@dataclass
class Allowed:
    """Texts of pages that state definitions and limits: ``PAGE: TEXT`` a line, ``PAGE: *`` for a whole page."""

    texts: dict[str, list[str]]
    used: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path = ALLOWED) -> "Allowed":
        texts: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                page, _, text = line.partition(": ")
                texts.setdefault(page, []).append(text)
        return cls(texts)

    def covers(self, page: str, line: str, start: int, end: int) -> bool:
        """Whether the figure at ``line[start:end]`` lies in an allowed text."""
        for text in self.texts.get(page, []):
            if text == WHOLE_PAGE or any(at <= start and end <= at + len(text) for at in _places(line, text)):
                self.used.add((page, text))
                return True
        return False

    def unused(self) -> list[tuple[str, str]]:
        """Entries that match no figure: the text has changed, or it never contained one."""
        return [(page, text) for page, texts in self.texts.items() for text in texts if (page, text) not in self.used]


def find(page: str, lines: list[tuple[int, str]], allowed: Allowed) -> Iterator[tuple[int, str]]:
    """(line number, figure) of every measured figure that is neither bound nor allowed.

    Args:
        page: relative to the repository.
        lines: numbered lines of the page without bound figures, generated tables and illustrations.
        allowed: definitions and limits.
    """
    fence, header = "", ""
    for place, (number, raw) in enumerate(lines):
        if raw.lstrip().startswith("```"):
            fence = "" if fence else raw.strip()
            continue
        if fence in CODE:
            continue
        line = _comment(raw) if fence else _visible(raw)
        following = lines[place + 1][1] if place + 1 < len(lines) else ""
        is_row = not fence and raw.startswith("|")
        if is_row and re.match(r"\|\s*:?-{3}", following):
            header = line
        elif not is_row:
            header = ""
        measured_table = is_row and header is not line and bool(_HEADER.search(header))
        yield from ((number, line[a:b]) for a, b in _spans(line, measured_table) if not allowed.covers(page, raw, a, b))


def _visible(line: str) -> str:
    """The line with inline code and link targets replaced by spaces, so that positions stay."""
    for pattern in (r"`[^`]*`", r"\]\([^)]*\)"):
        line = re.sub(pattern, lambda match: " " * len(match[0]), line)
    return line


def _comment(line: str) -> str:
    """A line of output unchanged; of a command only its comment, at the same position."""
    if not COMMAND.match(line):
        return line
    command, mark, comment = line.partition("#")
    return " " * len(command) + mark + comment


def _spans(line: str, measured_table: bool) -> list[tuple[int, int]]:
    """Positions of figures; if some overlap, the first and longest."""
    found = [match.span() for pattern in PATTERNS for match in pattern.finditer(line)]
    if measured_table:
        cells = re.finditer(r"(?<=\|)[^|]+(?=\|)", line)
        found += [cell.span() for cell in cells if _CELL.search(cell[0])]
    spans: list[tuple[int, int]] = []
    for start, end in sorted(found, key=lambda span: (span[0], -span[1])):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end))
    return spans


def _places(line: str, text: str) -> Iterator[int]:
    at = line.find(text)
    while at >= 0:
        yield at
        at = line.find(text, at + 1)
