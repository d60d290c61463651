"""Documentation: links work, code compiles, and the pages on run.yaml and rules agree with the code."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from densemble.config import MemberConfig, make_config
from densemble.ensemble.calibrate import CALIBRATIONS
from densemble.ensemble.combine import COMBINE, require_rule
from densemble.ensemble.guarantee import GUARANTEES
from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance
from densemble.ensemble.member_views import LARGEST_SCALE, SMALLEST_SCALE, VIEWS
from densemble.errors import DataError, UsageError
from densemble.selection.options import CALIBRATE, GUARANTEE, Options
from densemble.selection.strategies import MAX_FOR_ALL_SUBSETS, SELECT
from densemble.tasks import TASKS, Task, make_task

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RULES = ROOT / "docs" / "reference" / "rules.md"


def tasks() -> dict[str, Task]:
    """Tasks by their name on the page of rules; the two modes of heatmap are separate."""
    values = {"classes": ["a", "b"], "mode": "keypoints"}
    by_name = {name: make_task({**values, "name": name}) for name in TASKS}
    del by_name["heatmap"]
    return by_name | {mode: make_task({**values, "name": "heatmap", "mode": mode}) for mode in ("keypoints", "density")}


def suitable_tasks(require: Callable[[Task], object]) -> set[str]:
    """Names of the tasks for which ``require`` raises no UsageError."""
    suitable = set()
    for name, task in tasks().items():
        try:
            require(task)
        except UsageError:
            continue
        suitable.add(name)
    return suitable


def table(first: str) -> dict[str, list[str]]:
    """Table on the page of rules whose first column has this heading: first cell without backticks -> other cells."""
    lines = RULES.read_text(encoding="utf-8").splitlines()
    start = lines.index(next(line for line in lines if line.startswith(f"| {first} |"))) + 2
    rows = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        name, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        rows[name.strip("`")] = cells
    return rows


def names(cell: str) -> set[str]:
    return set(re.findall("`([^`]+)`", cell)) if cell != "all" else set(tasks())


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_point_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_compiles(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_reference_of_run_yaml_lists_every_key_with_its_default() -> None:
    (text,) = blocks(ROOT / "docs" / "reference" / "run-yaml.md", "yaml")
    written = yaml.safe_load(text)
    config = make_config(written)
    defaults = make_config({"task": "regression"})
    assert set(written) == set(type(config).model_fields)
    assert config.model_dump(exclude={"task", "members"}) == defaults.model_dump(exclude={"task", "members"})
    assert set(written["training"]) == set(type(config.training).model_fields)
    assert set(written["data"]) == set(config.data)
    assert set(written["trainer"]) == set(type(config.trainer).model_fields)
    assert set(written["members"][1]) | set(written["training"]) == set(MemberConfig.model_fields)


def test_table_of_selection_strategies() -> None:
    *strategies, names = table("`--select`")
    assert (strategies, names) == (list(SELECT), "NAME,NAME")
    assert f"at most {MAX_FOR_ALL_SUBSETS} candidates" in table("`--select`")["exhaustive"][0]


def test_table_of_rules_lists_tasks_and_fitting() -> None:
    rows = table("rule")
    assert list(rows) == list(COMBINE)
    for rule, (_, suitable, fitted) in rows.items():
        assert names(suitable) == suitable_tasks(lambda task, rule=rule: require_rule(rule, task)), rule
        assert (fitted == "-") == (COMBINE[rule].fit is None), rule
    indispensable = [name for name, rule in COMBINE.items() if rule.needs_all]
    assert re.findall(r"under every rule but\s+`(\w+)`", RULES.read_text(encoding="utf-8")) == indispensable


def test_table_of_calibrations_lists_tasks() -> None:
    rows = table("calibration")
    assert list(rows) == list(CALIBRATIONS)
    assert {*rows, "auto", "none"} == set(CALIBRATE)
    for name, cells in rows.items():
        assert names(cells[-1]) == suitable_tasks(lambda task, name=name: Options(calibrate=name).require(task)), name


def test_table_of_guarantees_lists_tasks_and_the_required_images() -> None:
    rows = table("`--guarantee`")
    assert {*rows, "none"} == set(GUARANTEE)
    assert {kind.strip("`") for kind, *_ in rows.values()} == set(GUARANTEES)
    at_5_percent = re.search(
        r"At level 0.05, `set` and `interval` need (\d+) images, and `risk` needs (\d+)\.",
        RULES.read_text(encoding="utf-8"),
    )
    assert at_5_percent is not None
    for guarantee, (_, _, suitable, required) in rows.items():
        assert names(suitable) == suitable_tasks(
            lambda task, guarantee=guarantee: Options(guarantee=guarantee).require(task)
        ), guarantee
        for level, images in ((0.1, int(required.split()[0])), (0.05, int(at_5_percent[1 + (guarantee == "risk")]))):
            assert allowed(guarantee, level, images)
            assert not allowed(guarantee, level, images - 1)


def allowed(guarantee: str, level: float, images: int) -> bool:
    """Whether ``images`` held-out images are enough for the guarantee."""
    try:
        if guarantee == "risk":
            certified_allowance(level, Options().confidence, images)
        else:
            expected_allowance(level, images)
    except DataError:
        return False
    return True


def test_table_of_views() -> None:
    assert list(table("view")) == list(VIEWS)
    assert f"any other percentage from {SMALLEST_SCALE} to {LARGEST_SCALE}" in RULES.read_text(encoding="utf-8")


def test_every_metric_of_the_table_of_tasks_can_select_members() -> None:
    page = (ROOT / "docs" / "reference" / "tasks.md").read_text(encoding="utf-8")
    for name, task in tasks().items():
        line = next(line for line in page.splitlines() if line.startswith("| `") and name in line.split(" | ")[0])
        listed = set(re.findall(r"\w+", line.split(" | ")[5]))
        assert listed - {"iou_per_class"} == set(task.metrics().objectives), name
