"""Runs to assemble."""

from collections.abc import Callable
from pathlib import Path

import pytest
from assembly.written_runs import Written, write_run


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """``written("depth")``: a run of that kind, written once. Tests must not change it."""
    found: dict[str, Written] = {}

    def get(kind: str) -> Written:
        if kind not in found:
            found[kind] = write_run(tmp_path_factory.mktemp(kind), kind)
        return found[kind]

    return get


@pytest.fixture
def fresh(written: Callable[[str], Written], tmp_path: Path) -> Callable[[str], Written]:
    """``fresh("depth")``: a copy of that run, to be changed."""
    return lambda kind: written(kind).copy(tmp_path / kind)
