"""Documentation of data and tasks: tables agree with the code, and quoted settings exist."""

import ast
import re
from pathlib import Path

import pytest
from data.broken_sets import BROKEN, Broken

from densemble.commands.overrides import with_settings
from densemble.config import make_config
from densemble.data.folder import FolderData
from densemble.data.transforms import AUGMENT
from densemble.presets import PRESETS, fitting_size
from densemble.tasks import TASKS, make_task

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "reference" / "data.md"
TASK_PAGE = ROOT / "docs" / "reference" / "tasks.md"
PRESET_PAGE = ROOT / "docs" / "how-to" / "train-without-being-an-expert.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
INDEX_OF_KIND = {"Problem": 0, "problem": 0, "report": 0, "_leak": 1, "_report": 1}
"""The functions of the check that make a problem, and the index of the argument that is its kind."""
LABELS_AS = ("labels as heat", "labels as values", "labels as density")
"""Kinds that an f-string creates: targets of other tasks that look like labels."""


def rows(page: Path, first: str) -> list[list[str]]:
    """Cells of the table whose first column has this heading."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |")) + 2
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start:end]]


def kinds_in_code() -> set[str]:
    """Kinds of problems in the source of the data check."""
    expressions: list[ast.expr] = []
    for file in (ROOT / "src" / "densemble" / "data" / "check").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                index = INDEX_OF_KIND.get(name, len(node.args))
                expressions += node.args[index : index + 1]
                expressions += [keyword.value for keyword in node.keywords if keyword.arg == "kind"]
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "kind":
                expressions.append(node.value)
    texts = [part for expression in expressions for part in ast.walk(expression) if isinstance(part, ast.Constant)]
    return {text.value for text in texts if isinstance(text.value, str) and text.value}


def documented() -> dict[str, tuple[str, str]]:
    """Kind -> severities and remedy in the table."""
    table = [row for row in rows(DATA, "kind") if not row[0].startswith("**")]
    return {kind: (row[1], row[3]) for row in table for kind in re.findall("`([^`]+)`", row[0])}


def test_table_lists_every_kind_of_problem() -> None:
    code = kinds_in_code()
    assert {"unpaired", "damaged", "leak", "0/255 mask", "empty map", "labels as "} <= code, (
        "the source of the data check was not read"
    )
    assert set(documented()) == (code - {"labels as "}) | set(LABELS_AS)


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_table_has_the_severity_and_remedy_of_the_check(broken: Broken) -> None:
    severities, remedy = documented()[broken.kind]
    assert broken.severity in severities.split(", ")
    flag = re.match(r"data\.\w+|--task \w+|--leave-out|class_weights|input_size", broken.remedy)
    assert flag is None or flag[0] in remedy


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_on_the_command_line_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    quoted = re.findall(r"--set '([^']+)'", text)
    plain = re.findall(r"--set ([\w.]+=[^\s`'\"]+)", text)
    for setting in [*quoted, *plain]:
        filled = re.sub(r"\b(LOW|FACTOR)\b", "1", setting).replace("HIGH", "2")
        values = {"task": "heatmap", "members": ["alexnet"], "out_size": [8, 8]}
        if setting != "a.b=c":  # a placeholder
            make_config(with_settings(values, [filled.rstrip(",;:.")]))


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub creates for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_point_to_headings(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    broken = [(file, name) for file, name in links if name not in anchors((page.parent / file) if file else page)]
    assert broken == []


def test_all_options_of_folder_data_are_documented() -> None:
    text = DATA.read_text(encoding="utf-8")
    options = FolderData.__init__.__annotations__.keys() - {"path", "task", "return"}
    assert [name for name in options if not re.search(rf"\b{name}\b", text)] == []


def test_table_of_augmentations_is_complete() -> None:
    assert [row[0] for row in rows(DATA, "`training.augment`")] == [f"`{name}`" for name in AUGMENT]


def example(name: str, mode: str) -> dict[str, object]:
    return {"name": name, "classes": ["a", "b"], "mode": mode}


def test_table_of_tasks_agrees_with_the_tasks() -> None:
    seen = set()
    for names, _, channels, activation, losses, metrics, *_ in rows(TASK_PAGE, "task"):
        mode = "density" if "density" in names else "keypoints"
        for name in re.findall("`([^`]+)`", names):
            seen.add(name)
            task = make_task(example(name, mode))
            assert set(re.findall(r"\w+", losses.replace("*", " ").replace("+", " "))) == set(task.losses)
            assert "+".join(re.findall(r"\*\*`?(\w+)`?\*\*", losses)) == task.default_loss
            listed = re.findall(r"\w+", metrics.replace("*", " "))
            assert listed[0] == task.primary
            computed = set(task.metrics().compute()) or set(listed)  # saliency computes no metrics without data
            assert set(listed) == computed
            assert (channels == "1") == (task.out_channels == 1)
            assert ("softmax" in activation) == (task.distribution == "categorical")
    assert seen == set(TASKS)


def test_table_of_presets_agrees_with_the_presets() -> None:
    table = {row[0]: row[1:] for row in rows(PRESET_PAGE, "sets")}
    for column, preset in enumerate(PRESETS.values()):
        listed = {key: cells[column] for key, cells in table.items()}
        area = next(value for key, value in listed.items() if "pixels" in key)
        height, width = fitting_size((480, 640), preset["pixels"])
        assert area == f"{preset['pixels']:,} (480x640: {height}x{width})"
        for key in ("epochs", "augment", "batch_size", "averaging", "patience"):
            assert listed[f"`training.{key}`"].startswith(str(preset["training"].get(key, "-")))
        assert ("cross_entropy+dice" in listed["`loss`"]) == ("thorough_loss" in preset)
