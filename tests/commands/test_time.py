"""``train --time``: the clock starts with the command, before imports and reading."""

import time
from pathlib import Path
from typing import Any

import pytest

from densemble import cli, run
from densemble.engines.budget import Budget


@pytest.mark.parametrize(("options", "seconds"), [(("--time", "90s"), 90.0), ((), None)])
def test_budget_starts_with_the_command(
    scenes: Path, tmp_path: Path, densemble: Any, monkeypatch: pytest.MonkeyPatch, options: Any, seconds: float | None
) -> None:
    budgets: list[Budget] = []
    monkeypatch.setattr(run, "run_members", lambda data, config, out, resume, budget: budgets.append(budget))
    clock = time.monotonic
    readings: list[float] = []

    def recorded() -> float:
        readings.append(clock())
        return readings[-1]

    monkeypatch.setattr(cli.time, "monotonic", recorded)
    ended = densemble("train", scenes, "--task", "saliency", "-o", tmp_path / "run", *options)
    assert ended.returncode == 0, ended.stderr
    assert budgets[0].seconds == seconds and budgets[0].started == readings[0], "the first reading of the clock"


def test_keep_checkpoints_reaches_the_settings(
    scenes: Path, tmp_path: Path, densemble: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: list[bool] = []
    monkeypatch.setattr(run, "run_members", lambda data, config, *_: values.append(config.trainer.keep_checkpoints))
    for options in ((), ("--keep-checkpoints",)):
        ended = densemble("train", scenes, "--task", "saliency", "-o", tmp_path / "run", *options)
        assert ended.returncode == 0, ended.stderr
    assert values == [False, True]
