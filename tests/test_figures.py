"""Figures in the documentation: each is bound to a result file, and differences are detected."""

import json
from pathlib import Path

import figures
import pytest
from figure_detector import Allowed, find
from figure_values import ROOT, FigureError, Results
from figures import GENERATED, check_page, pages

NONE = Allowed({})
MARKER = "<!-- = speed.json; ways > name=ours, fast > seconds; 1000*.1f -->"


@pytest.fixture
def results(tmp_path: Path) -> Results:
    content = {"ways": [{"name": "naive", "seconds": 0.5}, {"name": "ours, fast", "seconds": 0.125}], "best": [3, 1, 2]}
    (tmp_path / "speed.json").write_text(json.dumps(content))
    return Results(tmp_path)


@pytest.mark.parametrize("name", pages())
def test_figures_of_the_documentation_equal_their_result_files(name: str) -> None:
    page = check_page(name, (ROOT / name).read_text(encoding="utf-8"), Allowed.read())
    assert page.problems == []


def test_every_allowed_text_is_used() -> None:
    allowed = Allowed.read()
    for name in pages():
        check_page(name, (ROOT / name).read_text(encoding="utf-8"), allowed)
    assert allowed.unused() == []


def test_correct_figure_is_listed_with_its_value(results: Results) -> None:
    page = check_page("a.md", f"It takes **125.0**{MARKER} ms.", NONE, results)
    assert page.problems == []
    assert page.figures == ["a.md:1  125.0  speed.json: ways > name=ours, fast > seconds = 0.125"]


@pytest.mark.parametrize("written", ["120.0", "125", "0.125", "125.0%"])
def test_wrong_figure_is_a_problem_and_is_rewritten(written: str, results: Results) -> None:
    page = check_page("a.md", f"First line.\nIt takes {written}{MARKER} ms.", NONE, results)
    assert len(page.problems) == 1 and page.problems[0].startswith("a.md:2: ")
    assert page.wanted == ["First line.", f"It takes 125.0{MARKER} ms."]


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("nothing.json; a; .1f", "no result file nothing.json"),
        ("speed.json; ways > name=theirs > seconds; .1f", "nothing at 'name=theirs'"),
        ("speed.json; ways > * > seconds; .1f", "2 values where one is expected"),
        ("speed.json; ways > 0 > name; .1f", "cannot be written as '.1f'"),
        ("speed.json; most; best > *; d", "no function is named 'most'"),
        ("speed.json; .1f", "is not FILE; PATH; FORMAT"),
    ],
)
def test_invalid_marker_is_a_problem(marker: str, message: str, results: Results) -> None:
    page = check_page("a.md", f"It takes 1.0<!-- = {marker} --> units.", NONE, results)
    assert len(page.problems) == 1 and message in page.problems[0]


@pytest.mark.parametrize(
    ("function", "text"), [("max", "3.0"), ("min", "1.0"), ("mean", "2.0"), ("count", "3.0"), ("ratio", "3.0")]
)
def test_functions_of_multiple_values(function: str, text: str, results: Results) -> None:
    assert results.show("speed.json", "best > *", ".1f", function) == text
    with pytest.raises(FigureError):
        results.show("speed.json", "best > *", ".1f")


@pytest.mark.parametrize(
    "line",
    [
        "It takes 12 ms.",
        "It is 3.6x as fast.",
        "The miou is 0.674.",
        "An accuracy of .91 was seen.",
        "It kept 99.5 % of the score.",
        "162 of 162 work.",
        "An error of 2e-7.",
        "The cc was 0.7 then.",
    ],
)
def test_measured_figure_without_a_marker_is_detected(line: str) -> None:
    assert len(list(find("a.md", [(7, line)], NONE))) == 1
    assert list(find("a.md", [(7, line)], Allowed({"a.md": [line]}))) == []
    assert list(find("a.md", [(7, line)], Allowed({"b.md": [line]}))) != []


@pytest.mark.parametrize(
    "line", ["Seven members, 480 images.", "At 360x480 or 3x3.", "torch 2.14.1", "`--keep 0.995`", "[a](b-0.12.md)"]
)
def test_other_numbers_are_not_detected(line: str) -> None:
    assert list(find("a.md", [(1, line)], NONE)) == []


def test_whole_numbers_in_tables_of_times_and_metrics_are_detected() -> None:
    rows = [
        "| variant | ms |",
        "|---|---|",
        "| naive | 278 |",
        "",
        "| task | classes |",
        "|---|---|",
        "| camvid | 11 |",
    ]
    assert [number for number, _ in find("a.md", list(enumerate(rows, 1)), NONE)] == [3]


def test_comments_and_output_of_commands_are_checked_but_not_their_options() -> None:
    rows = ["```", "densemble train --time 30 s --keep 0.995  # takes 31 s", "val miou 0.674", "```"]
    assert [number for number, _ in find("a.md", list(enumerate(rows, 1)), NONE)] == [2, 3]


def test_illustration_must_contain_the_word(results: Results) -> None:
    text = "<!-- illustration -->\n{}\nmiou 0.674\n<!-- /illustration -->"
    assert check_page("a.md", text.format("An illustration:"), NONE, results).problems == []
    (problem,) = check_page("a.md", text.format("Measured:"), NONE, results).problems
    assert "does not say" in problem
    (problem,) = check_page("a.md", "<!-- illustration -->\nillustration", NONE, results).problems
    assert "is missing" in problem


def test_manually_edited_table_is_a_problem_and_is_rewritten(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(figures.BLOCKS, "best", lambda results: f"| {results.show('speed.json', 'best > 0', 'd')} |")
    right = "<!-- figures: best -->\n| 3 |\n<!-- /figures -->"
    assert check_page("a.md", right, NONE, results).problems == []
    page = check_page("a.md", right.replace("| 3 |", "| 4 |\n| 5 |"), NONE, results)
    assert len(page.problems) == 2
    assert "\n".join(page.wanted) == right


@pytest.mark.parametrize("name", GENERATED)
def test_manually_edited_generated_page_is_a_problem(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").rstrip("\n")
    head, _, last = text.rpartition("\n")
    for edited in (f"{text}\n9.99", head, f"{head}\n{last[:-2]}9 |"):
        (problem,) = check_page(name, edited, NONE).problems
        assert problem.startswith(f"{name}:")
