"""Two processes on one output folder: the second is refused, and the lock of a dead process is free."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustness.forked import Space
from robustness.small_runs import Undisturbed, leftovers

HOLD = """
import os, signal, sys, time
from pathlib import Path
from densemble.storage.folder_lock import folder_lock
sys.argv = ["densemble", "train", "some data"]
with folder_lock(Path(FOLDER)):
    while not Path(FOLDER + ".end").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def hold(space: Space, folder: Path) -> None:
    """Start a process that holds the lock of a folder until :func:`kill`."""
    space.start(code=HOLD.replace("FOLDER", repr(str(folder))))
    deadline = time.monotonic() + 10
    while not ((folder / ".lock").is_file() and (folder / ".lock").stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)


def kill(space: Space, folder: Path) -> None:
    Path(f"{folder}.end").touch()
    assert space.wait().code == -9


def test_the_second_process_is_refused(forked: Callable[[], Any], undisturbed: Undisturbed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with forked() as first, forked() as second:
        hold(first, out)
        commands = [
            undisturbed.predict(out),
            ["train", undisturbed.data, "-o", out, "--config", undisturbed.config],
            [
                "distill",
                undisturbed.artifact,
                undisturbed.data,
                "--student",
                "squeezenet1_1",
                "-o",
                f"{out}.safetensors",
            ],
        ]
        for arguments in commands:
            done = second.run(*arguments)
            assert done.code == 6 and "`densemble train 'some data'`); wait for it, stop it" in done.stderr, done.stderr
            assert "in use by process" in done.stderr
        assert [path.name for path in out.iterdir()] == [".lock"], "the second process wrote something"
        kill(first, out)
        assert (out / ".lock").is_file(), "the file of a dead process stays, and means nothing"
        done = second.run(*undisturbed.predict(out))
        assert done.code == 0, done.stderr
        assert leftovers(out) == []


def test_reading_needs_no_lock(forked: Callable[[], Any], undisturbed: Undisturbed, tmp_path: Path) -> None:
    with forked() as first, forked() as second:
        hold(first, undisturbed.run)
        for arguments in (["leaderboard", undisturbed.run], undisturbed.predict(tmp_path / "out")):
            assert second.run(*arguments).code == 0
        refused = second.run("assemble", undisturbed.run, "-o", tmp_path / "a.safetensors")
        assert refused.code == 6 and not (tmp_path / "a.safetensors").exists()
        kill(first, undisturbed.run)
    (undisturbed.run / ".lock").unlink()
