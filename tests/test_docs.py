"""The documents: links lead somewhere, code compiles, the reference of run.yaml says what the program does."""

import re
from pathlib import Path

import pytest
import yaml

from densemble.config import MemberConfig, make_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_compiles(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_the_reference_of_run_yaml_gives_every_key_and_its_default() -> None:
    (text,) = blocks(ROOT / "docs" / "reference" / "run-yaml.md", "yaml")
    written = yaml.safe_load(text)
    config = make_config(written)
    defaults = make_config({"task": "regression"})
    assert set(written) == set(type(config).model_fields)
    assert config.model_dump(exclude={"task", "members"}) == defaults.model_dump(exclude={"task", "members"})
    assert set(written["training"]) == set(type(config.training).model_fields)
    assert set(written["data"]) == set(type(config.data).model_fields)
    assert set(written["trainer"]) == set(type(config.trainer).model_fields)
    assert set(written["members"][1]) | set(written["training"]) == set(MemberConfig.model_fields)
