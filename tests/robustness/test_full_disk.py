"""Full disks: commands end with a message, lose nothing that was finished, and finish when there is space again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from robustness.forked import Space
from robustness.small_runs import differences, leftovers, unreadable

Forked = Callable[[], Any]
SIZES = {"train": 8_000_000, "assemble": 1_200_000, "predict": 120_000}
"""More bytes than each command writes."""
FREE = [(command, round(most * (number / 30) ** 2)) for command, most in SIZES.items() for number in range(30)]
"""Commands with the bytes that are free when they start."""
MAPS = """
from pathlib import Path
from densemble.errors import ResourceError
from densemble.storage.arrays import create_array, temporary_array
from densemble.storage.writing import cache_folder

folder = Path(FOLDER)
try:
    temporary_array(folder, "f4", (1000, 1000))[:] = 1
except ResourceError as error:
    print(error)
try:
    with cache_folder(folder / "cache") as building:
        create_array(building / "a.npy", "f4", (1000, 1000))[:] = 1
except ResourceError as error:
    print(error)
assert not list(folder.rglob("*.npy"))
"""


def fill(folder: Path, free: int) -> Path:
    """Leave ``free`` bytes on the file system of a folder."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        state = os.statvfs(folder)
        os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - free, 1))
    return filler


def arguments(command: str, undisturbed: Any, folder: Path, seen: Path) -> list[object]:
    """Arguments of a command that writes into ``folder``, which the test sees as ``seen``."""
    if command == "predict":
        return list(undisturbed.predict(folder / "out"))
    if command == "assemble":
        return ["assemble", folder / "run", "-o", folder / "new.safetensors", "--select", "all"]
    resume = ["--resume"] if (seen / "run" / "run.yaml").is_file() else ["--config", undisturbed.config]
    return ["train", undisturbed.data, "-o", folder / "run", "--keep-checkpoints", *resume]


def outcome(space: Space, command: str, free: int, undisturbed: Any, folder: Path) -> str | None:
    """Run a command with little space, then with enough; return what went wrong."""
    seen = space.path(folder)
    if command == "assemble":
        shutil.copytree(undisturbed.run, seen / "run")
    if command == "predict":
        shutil.copytree(undisturbed.predictions, seen / "out")
        (seen / "out" / "predicted.jsonl").unlink()
    filler = fill(seen, free)
    done = space.run(*arguments(command, undisturbed, folder, seen))
    problem = done.problem(0, 6, *((5,) if command == "train" else ()))
    if problem is None and done.code and str(folder) not in done.stderr:
        problem = f"does not name the folder: {done.stderr[-300:]}"
    problems = [problem] if problem else [*unreadable(seen), *leftovers(seen)]
    filler.unlink()
    again = space.run(*arguments(command, undisturbed, folder, seen))
    problems += [f"afterwards {text}" for text in filter(None, [again.problem(0)])]
    if command == "train":
        problems += differences(seen / "run", undisturbed.run)
    if command == "predict":
        problems += differences(seen / "out", undisturbed.predictions)
    problems += leftovers(seen)
    return f"{command} with {free} bytes: {'; '.join(problems)}" if problems else None


@pytest.mark.timeout(1800)
def test_full_disk(
    forked: Forked, undisturbed: Any, tmp_path: Path, drawn: Callable[..., list[Any]], report: Callable[..., None]
) -> None:
    cases, problems = drawn(FREE, seed=191), []  # few trainings in the tenth
    for command, free in cases:
        with forked() as space:
            space.mount(tmp_path / "disk", "32M")
            problems.append(outcome(space, command, free, undisturbed, tmp_path / "disk"))
    report(len(cases), [problem for problem in problems if problem])


@pytest.mark.parametrize("size", ["0", "100K", "300K"])
def test_a_full_disk_under_a_memory_map(size: str, forked: Forked, tmp_path: Path) -> None:
    with forked() as space:
        space.mount(tmp_path, "512K")
        fill(space.path(tmp_path), {"0": 0, "100K": 100_000, "300K": 300_000}[size])
        done = space.run(code=MAPS.replace("FOLDER", repr(str(tmp_path))))
    assert done.code == 0, done.stderr
    assert done.stdout.count("No space left on device (needs 4.0 MB, ") == 2
