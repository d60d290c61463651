"""Robustness tests: ``make test`` runs a seeded tenth of the cases of each test, ``make stress`` runs all of them."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from robustness.forked import Space, helper
from robustness.small_runs import Undisturbed, write_config, write_set


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``share`` twice: with a tenth of its cases, and with all of them under ``make stress``."""
    if "share" in metafunc.fixturenames:
        metafunc.parametrize(
            "share", [pytest.param(0.1, id="tenth"), pytest.param(1.0, id="all", marks=pytest.mark.stress)]
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that start the helper process in one process (--dist loadgroup), because it takes seconds."""
    for item in items:
        if isinstance(item, pytest.Function) and "forked" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("forked"))


@pytest.fixture
def drawn(share: float) -> Callable[..., list[Any]]:
    """``drawn(cases, seed=0)``: the seeded share of the cases, at least one, in their order."""

    def draw(cases: Iterable[Any], seed: int = 0) -> list[Any]:
        all_cases = list(cases)
        count = max(1, round(share * len(all_cases)))
        kept = random.Random(seed).sample(range(len(all_cases)), count)
        return [all_cases[index] for index in sorted(kept)]

    return draw


@pytest.fixture
def report(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """``report(cases, problems)``: add a row to the table of ``make stress``, and fail if there are problems.

    ``problems`` are texts, one for each case that went wrong: an escape, a hang, a traceback, a lost file.
    """

    def add(cases: int, problems: list[str], note: str = "") -> None:
        callspec = getattr(request.node, "callspec", None)
        parts = [part for part in callspec.id.split("-") if part not in ("tenth", "all")] if callspec else []
        name = request.node.originalname + (f"[{'-'.join(parts)}]" if parts else "")
        row = {"test": name, "cases": cases, "problems": len(problems), "note": note}
        record_property("robustness", json.dumps(row))
        assert cases > 0
        assert not problems, f"{len(problems)} of {cases} cases went wrong:\n" + "\n".join(problems[:20])

    return add


@pytest.fixture(scope="session")
def forked(no_personal_settings: None) -> Iterator[Callable[[], AbstractContextManager[Space]]]:
    """``with forked() as space: space.run("train", ...)`` runs commands in forked processes, see robustness.forked."""
    with helper() as open_space:
        yield open_space


@pytest.fixture(scope="session")
def undisturbed(forked: Callable[[], AbstractContextManager[Space]], tmp_path_factory: Any) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    made = Undisturbed(write_set(folder), write_config(folder / "config.yaml"), folder / "run", folder / "predictions")
    with forked() as space:
        for command, arguments in (("train", made.train(made.run)), ("predict", made.predict(made.predictions))):
            made.ends[command] = space.run(*arguments, env={"DENSEMBLE_CACHE_DIR": str(folder / "cache")})
            assert made.ends[command].code == 0, made.ends[command].stderr
    return made
