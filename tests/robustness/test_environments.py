"""Unusual environments: each command works, or ends with an exit code of its own and the reason; never a traceback."""

import errno
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robustness.small_runs import Undisturbed

from densemble.commands.missing_resources import missing_resource
from densemble.data import layouts
from densemble.data.parallel import map_in_threads
from densemble.errors import DataError, ResourceError, UsageError
from densemble.storage.decoding_memory import decoding_memory, image_memory, kept_in_memory, require_memory
from densemble.threads import started_threads
from densemble.training import loader_workers

# Runs a command after a change of the process that only root can make.
_COMMAND = """
import ctypes, os, struct, sys
library = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(library, name)(*arguments):
        print("NOT ALLOWED", name, os.strerror(ctypes.get_errno()))
        os._exit(0)

def separate():
    call("unshare", 0x20000)
    call("mount", b"none", b"/", None, 1 << 18 | 16384, None)

def hide(path):
    call("mount", b"/dev/null", path, None, 4096, None)

def read_only(path):
    call("mount", os.fsencode(path), os.fsencode(path), None, 4096, None)
    call("mount", b"none", os.fsencode(path), None, 4096 | 32 | 1, None)

def small(path, size):
    call("mount", b"tmpfs", path, b"tmpfs", 0, b"size=" + size)

def as_nobody(user=12345):  # who may read all files
    call("prctl", 8, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    rights = 1 << 1 | 1 << 2
    call("capset", struct.pack("II", 0x20080522, 0), struct.pack("6I", rights, rights, 0, 0, 0, 0))

{change}
from densemble.cli import main
sys.argv = ["densemble", *{arguments!r}]
main()
"""
_NO_HOME = {"HOME": None, "DENSEMBLE_CACHE_DIR": None, "XDG_CACHE_HOME": None}
_ASCII = """
import io, locale
locale.setlocale(locale.LC_ALL, "C")
sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="ascii")
sys.stderr = io.TextIOWrapper(sys.stderr.buffer, encoding="ascii", errors="backslashreplace", line_buffering=True)
"""


@dataclass(frozen=True)
class Environment:
    """An environment of a command.

    Attributes:
        change: Python code that makes it; ``DATA`` and ``RUN`` are folders.
        env, limits: variables and resource limits.
        codes: allowed exit codes.
        commands: names in ``COMMANDS``.
    """

    change: str = ""
    env: dict[str, str | None] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    codes: tuple[int, ...] = (0,)
    commands: tuple[str, ...] = ("check", "predict", "leaderboard")


COMMANDS: dict[str, Callable[[Undisturbed, Path], list[object]]] = {
    "check": lambda made, out: ["data", "check", made.data, "--task", "saliency"],
    "predict": lambda made, out: made.predict(out / "predictions"),
    "leaderboard": lambda made, out: ["leaderboard", made.run],
    "doctor": lambda made, out: ["doctor"],
    "train": lambda made, out: [*made.train(out / "run"), "--set", "trainer.workers=2"],
}
_WORKERS = ("train",)
_MISSING = (0, 2, 6)
ENVIRONMENTS: dict[str, Environment] = {
    "no home, no entry in the table of users": Environment("separate(); hide(b'/etc/passwd')", _NO_HOME),
    "no home, another user": Environment("as_nobody()", _NO_HOME),
    "absent home": Environment("as_nobody()", {**_NO_HOME, "HOME": "/proc/nowhere"}),
    "read-only home": Environment("separate(); read_only(DATA)", {**_NO_HOME, "HOME": "DATA"}),
    "read-only cache": Environment("separate(); read_only(DATA)", {"DENSEMBLE_CACHE_DIR": "DATA"}),
    "read-only data": Environment("separate(); read_only(DATA)"),
    "read-only run": Environment("separate(); read_only(RUN)"),
    "read-only current folder": Environment("separate(); read_only(DATA); os.chdir(DATA)"),
    "removed current folder": Environment("os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')", codes=(6,)),
    "cache is a file": Environment(env={"DENSEMBLE_CACHE_DIR": "/etc/hostname"}),
    "cache in the home folder of nobody": Environment(
        "separate(); hide(b'/etc/passwd')", {"HOME": None, "DENSEMBLE_CACHE_DIR": "~/cache"}
    ),
    "shared memory of 64 KB": Environment("separate(); small(b'/dev/shm', b'64K')", commands=_WORKERS),
    "no shared memory": Environment("separate(); small(b'/dev', b'64K')", commands=_WORKERS),
    "64 open files": Environment(limits={"NOFILE": 64}),
    "20 open files": Environment(limits={"NOFILE": 20}, codes=_MISSING),
    "3 open files": Environment(limits={"NOFILE": 3}, codes=_MISSING, commands=("check", "predict")),
    "128 open files and workers": Environment(limits={"NOFILE": 128}, commands=_WORKERS),
    "address space of 1 GB": Environment(limits={"AS": 1 << 30}, codes=_MISSING),
    "address space of 4 GB": Environment(limits={"AS": 4 << 30}, codes=_MISSING),
    "one process": Environment("as_nobody()", limits={"NPROC": 1}),
    "three processes and workers": Environment("as_nobody()", limits={"NPROC": 3}, commands=_WORKERS),
    "one core": Environment("os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])"),
    "absent folder for temporary files": Environment(env={"TMPDIR": "/proc/nowhere"}),
    "full folder for temporary files": Environment("separate(); small(b'/mnt', b'4K')", {"TMPDIR": "/mnt"}),
    "no UTF-8": Environment(_ASCII, {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
    "closed stdin": Environment("os.close(0); sys.stdin = None"),
    "narrow terminal": Environment(env={"COLUMNS": "1", "LINES": "1", "TERM": "dumb"}),
    "unknown terminal": Environment(env={"COLUMNS": "x", "TERM": "", "FORCE_COLOR": "1"}),
    "wrong number of threads": Environment(env={"OMP_NUM_THREADS": "many", "MKL_NUM_THREADS": "-1"}),
    "absent weights": Environment(env={"DENSEMBLE_WEIGHTS_DIR": "/proc/nowhere"}),
    "wrong limit of memory": Environment(env={"DENSEMBLE_IMAGE_MEMORY": "lots"}, codes=(0, 2)),
    "clock in 1970": Environment("import time; time.time = lambda: 0.0"),
    "no variables": Environment(env=dict.fromkeys(("PATH", "LANG", "TERM", "USER", "LOGNAME", "SHELL", "PWD"))),
}


def _run(space: Any, environment: Environment, name: str, made: Undisturbed, out: Path) -> list[str]:
    problems = []
    env = {key: str(made.data) if value == "DATA" else value for key, value in environment.env.items()}
    for command in environment.commands:
        arguments = [str(argument) for argument in COMMANDS[command](made, out)]
        change = environment.change.replace("DATA", repr(str(made.data))).replace("RUN", repr(str(made.run)))
        code = _COMMAND.replace("{change}", change).replace("{arguments!r}", repr(arguments))
        done = space.run(code=code, env=env, limits=environment.limits, cwd=str(out), timeout=60)
        if "NOT ALLOWED" not in done.stdout and (problem := done.problem(*environment.codes)):
            problems.append(f"{name}: {command} {problem}")
    return problems


def test_environments(
    forked: Callable[[], Any],
    undisturbed: Undisturbed,
    drawn: Callable[..., list[str]],
    report: Callable[..., None],
    tmp_path: Path,
) -> None:
    names, problems = drawn(ENVIRONMENTS), []
    with forked() as space:
        for number, name in enumerate(names):
            out = tmp_path / str(number)
            out.mkdir()
            parents = takewhile(lambda parent: parent != Path(tempfile.gettempdir()), tmp_path.parents)
            for folder in (out, tmp_path, undisturbed.data.parent, *parents):  # for another user
                if folder.stat().st_uid == os.getuid():
                    folder.chmod(folder.stat().st_mode | 0o777)
            problems += _run(space, ENVIRONMENTS[name], name, undisturbed, out)
    report(cases=len(names), problems=problems)


def test_workers_need_shared_memory(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    split = _Split()
    free = {"bytes": 10**9}
    monkeypatch.setattr(loader_workers, "_free_bytes", lambda: free["bytes"])
    assert loader_workers.usable_workers(2, split, 4) == 2 and lines == []
    free["bytes"] = 64 << 10
    assert loader_workers.usable_workers(0, split, 4) == 0 and lines == []
    assert loader_workers.usable_workers(2, split, 4) == 0
    assert len(lines) == 1 and "/dev/shm has 64 KiB free" in lines[0] and "--shm-size" in lines[0]


class _Split:
    images = np.zeros((1, 3, 32, 48), np.uint8)
    targets = np.zeros((1, 32, 48), np.uint8)


def test_threads_as_far_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    start, allowed = threading.Thread.start, {"count": 2}

    def limited(thread: threading.Thread) -> None:
        alive = sum(other.name.startswith("few") for other in threading.enumerate())
        if thread.name.startswith("few") and alive >= allowed["count"]:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    pool = started_threads(8, "few")
    assert pool is not None
    with pool:
        assert list(pool.map(lambda number: number**2, range(50))) == [number**2 for number in range(50)]
    allowed["count"] = 0
    assert started_threads(8, "few") is None
    monkeypatch.setattr("densemble.data.parallel.started_threads", lambda count: None)
    assert map_in_threads(lambda number: number + 1, range(20)) == list(range(1, 21))


def test_threads_share_the_memory_of_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At no time do images take more than the budget, except one pair whose image and target fill it alone."""
    monkeypatch.setenv("DENSEMBLE_IMAGE_MEMORY", "100")
    (tmp_path / "p").write_bytes(b"x")
    taken, most, lock = 0, 0, threading.Lock()

    def add(count: int) -> None:
        nonlocal taken, most
        with lock:
            taken += count
            most = max(most, taken)

    def pair(number: int) -> int:
        with kept_in_memory():
            for count in (number % 50 + 1, number % 30 + 1):
                with decoding_memory(tmp_path / "p", count):
                    add(count)
                time.sleep(0.0005)
            add(-(number % 50 + 1) - (number % 30 + 1))
        return number

    pool = started_threads(8)
    assert pool is not None
    with pool:
        assert list(pool.map(pair, range(120))) == list(range(120))  # no deadlock
    assert 40 < most <= 130
    with pytest.raises(DataError, match=r"'.*p' \(1 bytes\) claims 1 MiB .* DENSEMBLE_IMAGE_MEMORY=1G"):
        require_memory(tmp_path / "p", 101 + (1 << 14))


@pytest.mark.parametrize(("text", "count"), [("", 576 << 20), ("64M", 64 << 20), ("2g", 2 << 30), ("3 GiB", 3 << 30)])
def test_the_limit_of_memory(text: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEMBLE_IMAGE_MEMORY", text)
    assert image_memory() == count
    for wrong in ("lots", "-1", "0", "1.5G", "9" * 30):
        monkeypatch.setenv("DENSEMBLE_IMAGE_MEMORY", wrong)
        with pytest.raises(UsageError, match="DENSEMBLE_IMAGE_MEMORY"):
            image_memory()


def test_reasons_of_the_system() -> None:
    assert "not enough memory" in str(missing_resource(MemoryError()))
    assert "ulimit -n" in str(missing_resource(OSError(24, "Too many open files")))
    assert "ulimit -u" in str(missing_resource(RuntimeError("can't start new thread")))
    wrapped = ImportError("no module")
    wrapped.__cause__ = OSError(12, "Cannot allocate memory")
    assert "ulimit -v" in str(missing_resource(wrapped))
    assert missing_resource(ValueError("wrong")) is None


def test_exhausted_resources_are_no_faults_of_the_data(
    undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, error in ((errno.ENOMEM, ResourceError), (errno.EMFILE, ResourceError), (errno.EACCES, DataError)):

        def refuse(path: Path, number: int = number) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(layouts, "_formats", refuse)
        with pytest.raises(error, match=re.escape(os.strerror(number))):
            layouts._detect(undisturbed.data)
