"""Print every figure of README.md, CHANGELOG.md and docs with its value in the result file; fail if one differs.

    python benchmarks/figures.py [--write] [--quiet]

The exit code is 1 if a figure differs from its result file, a result file or a path in it is missing, a measured figure
is not bound to a result file, or a generated page differs from the output of its script. ``--write`` first rewrites
figures, tables and pages from the result files.

Markers are HTML comments, which readers do not see:

- ``0.711<!-- = FILE; PATH; FORMAT -->`` or ``<!-- = FILE; FUNCTION; PATH; ...; FORMAT -->`` binds the number before it
  to a value of ``benchmarks/results/FILE``. The steps of a path are joined by " > ".
- ``<!-- figures: NAME -->`` ... ``<!-- /figures -->`` encloses a table that a row of ``figure_tables.BLOCKS`` writes.
- ``<!-- illustration -->`` ... ``<!-- /illustration -->`` encloses figures without a result file. The enclosed text
  must tell the reader that it is an illustration.

figure_detector.py defines what counts as a measured figure. figures_allowed.txt lists definitions and limits.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import backbones_page
import choosing_page
import export_page
import follow_pages
import speed_page
from figure_detector import PATTERNS, Allowed, find
from figure_tables import BLOCKS
from figure_values import ROOT, FigureError, Results

GENERATED: dict[str, tuple[Callable[[], str], list[str]]] = {
    "docs/reference/backbones.md": (backbones_page.page, ["src/densemble/storage/coverage.jsonl"]),
    "docs/reference/choosing-results.md": (choosing_page.page, ["choosing.json"]),
    "docs/reference/export-parity.md": (export_page.page, ["export_parity.json"]),
    **{f"docs/get-started/{name}.md": (make, ["get_started.json"]) for name, make in follow_pages.PAGE.items()},
    "docs/reference/speed.md": (speed_page.page, [f"{name}.json" for name in speed_page.SECTIONS]),
}
"""Pages that a script generates: function that returns the text, and its files."""

_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?"
_BOUND = re.compile(rf"(?P<number>{_NUMBER})(?P<after>\**)<!-- = (?P<marker>.*?) -->")
_START = re.compile(r"<!-- (?:figures: (?P<block>[\w-]+)|(?P<illustration>illustration)) -->$")
_ENDS = {True: "<!-- /illustration -->", False: "<!-- /figures -->"}


@dataclass
class Page:
    """One page with its expected text and its problems.

    Attributes:
        wanted: lines with the values of the result files.
        rest: numbered lines without bound figures, tables and illustrations, for the detector.
        figures: lines to print, one per figure.
    """

    name: str
    wanted: list[str] = field(default_factory=list)
    rest: list[tuple[int, str]] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def problem(self, number: int, text: str) -> None:
        self.problems.append(f"{self.name}:{number}: {text}")


def pages() -> list[str]:
    """Names of all pages with figures, relative to the repository."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def check_page(name: str, text: str, allowed: Allowed, results: Results | None = None) -> Page:
    """Compares the figures of one page with their result files.

    Args:
        name: relative to the repository.
        text: of the page.
        allowed: definitions and limits.
        results: default those under benchmarks/results.
    """
    if name in GENERATED:
        return _check_generated(name, text)
    page, results = Page(name), results or Results()
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        start = _START.match(line.strip())
        if start is None:
            _check_line(page, number, line, results)
            continue
        enclosed = _enclosed(page, number, lines, _ENDS[bool(start["illustration"])])
        if start["illustration"]:
            _check_illustration(page, number, line, enclosed)
        else:
            _check_block(page, number, line, enclosed, results)
    for number, figure in find(name, page.rest, allowed):
        page.problem(number, f"'{figure.strip()}' is bound to no result file")
    return page


def _enclosed(page: Page, number: int, lines: Iterator[tuple[int, str]], end: str) -> list[str]:
    """The lines up to an end marker."""
    found = []
    for _, line in lines:
        if line.strip() == end:
            return found
        found.append(line)
    page.problem(number, f"'{end}' is missing")
    return found


def _check_line(page: Page, number: int, line: str, results: Results) -> None:
    """Compares the numbers before inline markers."""

    def bind(match: re.Match[str]) -> str:
        try:
            file, *middle, form = [part.strip() for part in match["marker"].split(";")]
            if not middle:
                raise FigureError(f"'{match['marker']}' is not FILE; PATH; FORMAT")
            function, paths = (middle[0], middle[1:]) if len(middle) > 1 else ("", middle)
            text = results.show(file, paths, form, function)
        except FigureError as error:
            page.problem(number, str(error))
            return match[0]
        figure = results.figures[-1]
        page.figures.append(f"{page.name}:{number}  {text}  {figure.source} = {figure.value}")
        if text != match["number"]:
            page.problem(number, f"{match['number']} is {text} ({figure.value}) in {figure.source}")
        return f"{text}{match['after']}<!-- = {match['marker']} -->"

    page.wanted.append(_BOUND.sub(bind, line))
    rest = re.sub(r"<!--.*?-->", "", _BOUND.sub("bound", line))
    if "<!-- =" in _BOUND.sub("", line):
        page.problem(number, "a marker has no number before it")
    page.rest.append((number, rest))


def _check_block(page: Page, number: int, start: str, enclosed: list[str], results: Results) -> None:
    """Compares a generated table."""
    name = start.split("figures: ")[1].split(" ")[0]
    before = len(results.figures)
    made = enclosed
    try:
        if name not in BLOCKS:
            raise FigureError(f"no table is named '{name}'; there are: {', '.join(BLOCKS)}")
        made = BLOCKS[name](results).splitlines()
    except FigureError as error:
        page.problem(number, str(error))
    for figure in results.figures[before:]:
        page.figures.append(f"{page.name}:{number} {name}  {figure.text}  {figure.source} = {figure.value}")
    for offset, (own, line) in enumerate(_pairs(enclosed, made), 1):
        if own != line:
            page.problem(number + offset, f"the table '{name}' has '{own}' where the result file gives '{line}'")
    page.wanted += [start, *made, _ENDS[False]]


def _pairs(one: list[str], other: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of lines; the shorter list is filled with empty lines."""
    longest = max(len(one), len(other))
    return zip(one + [""] * (longest - len(one)), other + [""] * (longest - len(other)), strict=True)


def _check_illustration(page: Page, number: int, start: str, enclosed: list[str]) -> None:
    """The text must say that it is an illustration."""
    if not re.search(r"illustrat", "\n".join(enclosed), re.IGNORECASE):
        page.problem(number, "the text between the markers does not say that its figures are an illustration")
    count = sum(len(pattern.findall(line)) for line in enclosed for pattern in PATTERNS)
    page.figures.append(f"{page.name}:{number}  illustration, about {count} figures without a result file")
    page.wanted += [start, *enclosed, _ENDS[True]]


def _check_generated(name: str, text: str) -> Page:
    """Compare a page with the output of its script."""
    page = Page(name)
    make, files = GENERATED[name]
    script = f"benchmarks/{make.__module__}.py"
    try:
        made = make()
    except (OSError, KeyError) as error:
        page.problem(1, f"{script} cannot make the page: {error!r}")
        return page
    page.wanted = made.splitlines()
    for number, (own, line) in enumerate(_pairs(text.splitlines(), page.wanted), 1):
        if own != line:
            page.problem(number, f"is '{own}' where {script} writes '{line}'")
        numbers = re.findall(_NUMBER, line)
        if numbers:
            page.figures.append(f"{name}:{number}  {' '.join(numbers)}  by {script} from {', '.join(files)}")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rewrite figures, tables and pages from the result files")
    parser.add_argument("--quiet", action="store_true", help="print problems and the count only")
    arguments = parser.parse_args()
    allowed, count, problems = Allowed.read(), 0, []
    for name in pages():
        path = ROOT / name
        page = check_page(name, path.read_text(encoding="utf-8"), allowed)
        if arguments.write:
            path.write_text("\n".join(page.wanted) + "\n", encoding="utf-8")
            page = check_page(name, path.read_text(encoding="utf-8"), allowed)
        if not arguments.quiet:
            print("\n".join(page.figures), end="\n" if page.figures else "")
        count += len(page.figures)
        problems += page.problems
    problems += [f"figures_allowed.txt: '{page}: {text}' matches no figure" for page, text in allowed.unused()]
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    print(f"{count} lines of figures, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
