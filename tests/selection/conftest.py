"""Fixtures: runs to assemble."""

from collections.abc import Callable
from pathlib import Path

import pytest
from selection.written_runs import PLANTED, Written, planted_logits, write_run

from densemble.selection import assemble
from densemble.selection import candidate_maps as evidence
from densemble.selection.folds import folds_of


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """``written("depth")``: a run of that task, written once. Tests must not change it."""
    result: dict[str, Written] = {}

    def get(kind: str) -> Written:
        if kind not in result:
            result[kind] = write_run(tmp_path_factory.mktemp(kind), kind)
        return result[kind]

    return get


@pytest.fixture
def fresh(written: Callable[[str], Written], tmp_path: Path) -> Callable[[str], Written]:
    """``fresh("depth")``: a copy of that run that a test may change."""
    return lambda kind: written(kind).copy(tmp_path / kind)


@pytest.fixture(autouse=True)
def planted_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members with planted kept predictions also serve the planted maps."""
    real = evidence.run_candidate

    def run(candidate, data, images):  # type: ignore[no-untyped-def]
        if (candidate.predictions.parent / PLANTED).is_file():
            return planted_logits(data.task, candidate, data, images)
        return real(candidate, data, images)

    monkeypatch.setattr(evidence, "run_candidate", run)


@pytest.fixture(autouse=True)
def two_folds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use two folds for cross-fitting, which is faster; tests marked ``every_fold`` use the default number."""
    if request.node.get_closest_marker("every_fold") is None:
        monkeypatch.setattr(assemble, "folds_of", lambda images, folds, groups: folds_of(images, min(folds, 2), groups))
