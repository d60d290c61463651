"""Documentation site: navigation, generated pages and table of backbones, without building it."""

import json
import re
from pathlib import Path

import pytest
from api_page import page as api_page
from backbone_table import backbone_rows
from check_site import check
from cli_page import commands
from cli_page import page as cli_page
from follow_pages import PAGE, RESULT, blocks
from follow_pages import commands as commands_of
from navigation import SECTIONS, navigation
from source import for_site
from typer.testing import CliRunner

import densemble as de
from densemble.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GENERATED = {"reference/cli.md", "reference/api.md"}


def identifier(heading: str) -> str:
    """Anchor of a heading, as Python-Markdown and GitHub make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def headings(page: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {identifier(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


def test_every_page_is_in_the_navigation_once() -> None:
    nav = navigation(DOCS)
    paths = [path for section in nav for pages in section.values() if isinstance(pages, list) for page in pages
             for path in page.values()]  # fmt: skip
    assert sorted([*paths, "README.md"]) == [page.relative_to(DOCS).as_posix() for page in PAGES]
    assert [title for section in nav for title in section] == ["Home", *SECTIONS.values()]


def test_a_new_page_needs_no_entry(tmp_path: Path) -> None:
    for name, text in {
        "README.md": "# A\n[b](how-to/b.md)",
        "how-to/b.md": "# B",
        "how-to/a.md": "# A new page",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    how_to = next(section["How-to"] for section in navigation(tmp_path) if "How-to" in section)
    assert how_to == [{"B": "how-to/b.md"}, {"A new page": "how-to/a.md"}]


@pytest.mark.parametrize("folder", SECTIONS)
def test_anchors_of_links_exist(folder: str) -> None:
    missing = []
    for page in (DOCS / folder).glob("*.md"):
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
            target = (page.parent / path).resolve() if path else page
            if target.suffix == ".md" and target.is_relative_to(DOCS) and anchor not in headings(target):
                missing.append(f"{page.name}: {path}#{anchor}")
    assert missing == []


def test_pages_link_to_no_generated_page() -> None:
    """Readers of the repository do not have them."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert not any(link.endswith(name.removeprefix("reference/")) for name in GENERATED), (page, link)


def test_reference_of_the_command_line_has_every_command_and_option() -> None:
    text = cli_page()
    shown = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "200"}).stdout
    section = text.split("\n## predict\n")[1].split("\n## ")[0]
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", shown)) - {"--help"}
    assert len(options) > 10 and all(f"`{option}" in section for option in options)
    assert {"train", "assemble", "evaluate", "data check"} <= {name for name, _ in commands()}
    assert all(f"\n## {name}\n" in text for name, _ in commands())


def test_the_get_started_pages_show_what_the_commands_print() -> None:
    """The output on the pages is that of benchmarks/results/get_started.json, in the order of the commands."""
    recorded = json.loads(RESULT.read_text(encoding="utf-8"))["pages"] if RESULT.is_file() else {}
    for name, make in PAGE.items():
        text = (DOCS / "get-started" / f"{name}.md").read_text(encoding="utf-8")
        lines = text.splitlines()
        assert text == make(), f"python benchmarks/figures.py --write fills {name}.md"
        console = [block for block in blocks(lines) if block.language == "console"]
        shown = [command for block in console for command in commands_of(lines, block)]
        assert len(shown) >= 5
        followed = [entry["command"] for entry in recorded.get(name, [])]
        assert followed == shown[: len(followed)]


def test_reference_of_python_has_every_public_name_once() -> None:
    assert sorted(re.findall(r"^::: densemble\.(\w+)$", api_page(), re.MULTILINE)) == sorted(de.__all__)


def test_rows_of_backbones_agree_with_the_command() -> None:
    """alexnet up to features.4: 64*(3*121+1) + 192*(64*25+1) parameters of 61,100,840 are kept."""
    rows = {str(row[0]): row for row in backbone_rows()}
    kept = (64 * (3 * 121 + 1) + 192 * (64 * 25 + 1)) / 61_100_840
    name, nodes, sizes, parameters, _, *cuts = rows["alexnet"]
    assert (name, nodes, sizes, parameters) == ("alexnet", 13, "any size", 61_100_840)
    assert cuts[1][:4] == ["features.4", 192, "29x39", round(kept, 4)]
    assert len(rows) == 1452 and json.dumps(rows)


def test_markdown_of_the_repository_becomes_that_of_the_site() -> None:
    page = DOCS / "how-to" / "x.md"
    text = "Text:\n- one\n  - two\n\n| a |\n|---|\n<!-- = f -->[code](../../examples/choosing)\n[a](tune.md#limits)\n"
    code = "code (`examples/choosing` in the repository)"
    expected = f"Text:\n\n- one\n    - two\n\n| a |\n|---|\n{code}\n[a](tune.md#limits)\n"
    assert for_site(text, page, ROOT) == expected
    linked = for_site("[code](../../examples/choosing)", page, ROOT, "https://host/blob/main")
    assert linked == "[code](https://host/blob/main/examples/choosing)"
    code = "```\nText:\n- <!-- kept -->\n```"
    assert for_site(code, page, ROOT).strip() == code


def test_a_built_site_is_checked(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="#top">1</a><a href="b.html#x">2</a><a href="c.html">3</a><a href="https://h/">4</a>'
        '<link rel="stylesheet" href="https://host/a.css">'
    )
    (tmp_path / "b.html").write_text("<p>")
    assert check(tmp_path) == [
        "index.html: loads https://host/a.css from another host",
        "index.html: b.html#x has no such heading",
        "index.html: c.html does not exist",
    ]
