"""Kills: whatever the moment, nothing is unreadable, and the same command finishes with the same bits."""

import random
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from robustness.forked import Done, Space
from robustness.small_runs import MEMBER, Undisturbed, differences, leftovers, unreadable, write_config

Forked = Callable[[], Any]
Drawn, Report = Callable[..., list[Any]], Callable[..., None]
COUNTS = {"train": 35, "assemble": 25, "predict": 25, "cache": 15}
CASES = [(command, number) for command, count in COUNTS.items() for number in range(count)]
"""Commands, each with the number of the kill."""


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

    @property
    def out(self) -> Path:
        return self.folder / ("out" if self.command == "predict" else "run")

    def arguments(self) -> list[object]:
        if self.command == "predict":
            return self.made.predict(self.out)
        if self.command == "assemble":
            return ["assemble", self.out, "-o", self.out / "new.safetensors", "--select", "all"]
        return self.made.train(self.out)

    def run(self, **options: Any) -> Any:
        cache = {"DENSEMBLE_CACHE_DIR": str(self.folder / "cache")}
        return self.space.run(*self.arguments(), env=cache, **options)

    def problems(self, expected: Path) -> list[str]:
        """Say what is wrong after a kill; then repeat the command and compare its files."""
        problems = unreadable(self.folder)
        done = self.run()
        problems += [f"afterwards it {text}" for text in filter(None, [done.problem(0)])]
        return problems + unreadable(self.folder) + leftovers(self.folder) + differences(self.out, expected)


def killed(victim: Victim, expected: Path, number: int, whole: Done) -> str | None:
    """Kill a command at a moment that its number decides, and say what is wrong afterwards.

    Args:
        victim: the command.
        expected: output folder of the same command without a kill.
        number: an even number kills at a change of a file, an odd one at a time.
        whole: end of the same command without a kill.
    """
    moment = random.Random(f"{victim.command} {number}")
    if number % 2:
        options: dict[str, Any] = {"kill_after": moment.uniform(0, whole.seconds)}
    else:
        options = {"kill_at_change": moment.randint(1, whole.changes)}
    done = victim.run(**options)
    problems = victim.problems(expected)
    if done.code not in (-9, 0):
        problems.append(f"ended with {done.code} before it was killed: {done.stderr[-300:]}")
    return f"{victim.command} {options}: {'; '.join(problems)}" if problems else None


@pytest.mark.timeout(1800)
def test_kills(forked: Forked, undisturbed: Undisturbed, tmp_path: Path, drawn: Drawn, report: Report) -> None:
    """Kill trainings, assemblies, predictions and computations of caches."""
    cases, problems = drawn(CASES, seed=249), []  # few trainings in the tenth
    frozen = {"epochs": 1, "batch_size": 2, "precision": "fp32", "freeze_epochs": 1, "augment": "none"}
    config = write_config(
        tmp_path / "cache.yaml", members=[{**MEMBER, "name": "a"}], training={**frozen, "cache_features": True}
    )
    with forked() as space:
        for command in dict.fromkeys(command for command, _ in cases):
            made = undisturbed if command != "cache" else Undisturbed(undisturbed.data, config, *([tmp_path] * 2))
            if command in made.ends:
                expected, whole = {"train": made.run, "predict": made.predictions}[command], made.ends[command]
            else:
                reference = Victim(space, made, command, tmp_path / command)
                expected, whole = reference.out, reference.run()
                assert whole.code == 0, whole.stderr
            for number in (number for other, number in cases if other == command):
                victim = Victim(space, made, command, tmp_path / f"{command}{number}")
                problems.append(killed(victim, expected, number, whole))
                shutil.rmtree(victim.folder)
    report(len(cases), [problem for problem in problems if problem])


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    not find_spec("densemble.training.random_state"), reason="checkpoints hold no states of random generators"
)
def test_kills_of_a_head_with_dropout(forked: Forked, undisturbed: Undisturbed, tmp_path: Path, report: Report) -> None:
    """The network draws random numbers, which a continued training draws again."""
    config = write_config(tmp_path / "dropout.yaml", members=[{**MEMBER, "name": "dropout", "head": "smp-fpn"}])
    made, problems = Undisturbed(undisturbed.data, config, tmp_path, tmp_path), []
    with forked() as space:
        reference = Victim(space, made, "train", tmp_path / "whole")
        whole = reference.run()
        for number in range(10):
            victim = Victim(space, made, "train", tmp_path / f"dropout{number}")
            problems.append(killed(victim, reference.out, number, whole))
            shutil.rmtree(victim.folder)
    report(10, [problem for problem in problems if problem])
