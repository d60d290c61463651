"""Kills: whatever the moment, nothing is unreadable, and the same command finishes with the same bits."""

import random
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from robustness.forked import Space
from robustness.small_runs import MEMBER, Undisturbed, differences, leftovers, unreadable, write_config

Forked = Callable[[], Any]
Drawn, Report = Callable[..., list[Any]], Callable[..., None]
COUNTS = {"train": 35, "assemble": 25, "predict": 25, "cache": 15}
CASES = [(command, number) for command, count in COUNTS.items() for number in range(count)]
"""Commands with the number of the kill: even ones at a change of a file, odd ones at a time."""
RANDOM_HEAD = {**MEMBER, "name": "dropout", "head": "smp-fpn"}


class Victim:
    """A command that is killed, and then repeated until it ends.

    Args:
        space: where it runs.
        made: a run that nothing disturbed.
        command: one of ``COUNTS``.
        folder: folder for its files.
    """

    def __init__(self, space: Space, made: Undisturbed, command: str, folder: Path) -> None:
        self.space, self.made, self.command = space, made, command
        self.folder = folder
        folder.mkdir()
        if command == "assemble":
            shutil.copytree(made.run, folder / "run")

    def arguments(self) -> list[object]:
        if self.command == "predict":
            return self.made.predict(self.folder / "out")
        if self.command == "assemble":
            return ["assemble", self.folder / "run", "-o", self.folder / "new.safetensors", "--select", "all"]
        return self.made.train(self.folder / "run")

    def run(self, **options: Any) -> Any:
        cache = {"DENSEMBLE_CACHE_DIR": str(self.folder / "cache")}
        return self.space.run(*self.arguments(), env=cache, **options)

    def problems(self, expected: Path) -> list[str]:
        """Say what is wrong after a kill; then repeat the command and compare its files."""
        problems = unreadable(self.folder)
        done = self.run()
        problems += [f"afterwards it {text}" for text in filter(None, [done.problem(0)])]
        return problems + unreadable(self.folder) + leftovers(self.folder) + differences(self.folder, expected)


def killed(victim: Victim, expected: Path, number: int, changes: int, seconds: float) -> str | None:
    """Kill a command at a moment that its number decides, and say what is wrong afterwards."""
    moment = random.Random(f"{victim.command} {number}")
    if number % 2:
        options: dict[str, Any] = {"kill_after": moment.uniform(0, seconds)}
    else:
        options = {"kill_at_change": moment.randint(1, changes)}
    done = victim.run(**options)
    problems = victim.problems(expected)
    if done.code not in (-9, 0):
        problems.append(f"ended with {done.code} before it was killed: {done.stderr[-300:]}")
    return f"{victim.command} {options}: {'; '.join(problems)}" if problems else None


@pytest.mark.timeout(1800)
def test_kills(
    forked: Forked,
    undisturbed: Undisturbed,
    tmp_path: Path,
    drawn: Callable[..., list[Any]],
    report: Callable[..., None],
) -> None:
    """Kill trainings, assemblies, predictions and computations of caches."""
    cases, problems = drawn(CASES, seed=3), []
    with forked() as space:
        frozen = write_config(
            tmp_path / "frozen.yaml",
            members=[{**MEMBER, "name": "frozen"}],
            training={
                "epochs": 1, "batch_size": 2, "precision": "fp32", "freeze_epochs": 1, "augment": "none",
                "cache_features": True,
            },
        )  # fmt: skip
        for command in dict.fromkeys(command for command, _ in cases):
            made = undisturbed if command != "cache" else Undisturbed(undisturbed.data, frozen, *([tmp_path] * 2))
            whole = Victim(space, made, command, tmp_path / command)
            reference = whole.run()
            assert reference.code == 0, reference.stderr
            for number in (number for other, number in cases if other == command):
                victim = Victim(space, made, command, tmp_path / f"{command}{number}")
                problems.append(killed(victim, whole.folder, number, reference.changes, reference.seconds))
                shutil.rmtree(victim.folder)
    report(len(cases), [problem for problem in problems if problem])


@pytest.mark.skipif(
    not find_spec("densemble.training.random_state"), reason="checkpoints hold no states of random generators"
)
@pytest.mark.timeout(1800)
def test_kills_of_a_head_with_dropout(
    forked: Forked,
    undisturbed: Undisturbed,
    tmp_path: Path,
    drawn: Callable[..., list[Any]],
    report: Callable[..., None],
) -> None:
    """The network draws random numbers, which a continued training draws again."""
    cases, problems = drawn(range(10)), []
    config = write_config(tmp_path / "dropout.yaml", members=[RANDOM_HEAD])
    made = Undisturbed(undisturbed.data, config, tmp_path, tmp_path)
    with forked() as space:
        whole = Victim(space, made, "train", tmp_path / "whole")
        reference = whole.run()
        for number in cases:
            victim = Victim(space, made, "train", tmp_path / f"dropout{number}")
            problems.append(killed(victim, whole.folder, number, reference.changes, reference.seconds))
            shutil.rmtree(victim.folder)
    report(len(cases), [problem for problem in problems if problem])
