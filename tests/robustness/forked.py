"""Run commands of densemble in forked processes: with limits, full disks and kills, without 5 s of imports for each.

A helper process imports densemble once. Each command runs in a fork of it: a real process, which can be killed, have
resource limits, and see file systems of its own::

    def test_something(forked, tmp_path):
        with forked() as space:  # a process with its own mounts; several can be used at the same time, by threads
            space.mount(tmp_path / "small", "1M")  # a tmpfs; skips the test where this is not allowed
            done = space.run("train", data, "-o", tmp_path / "small" / "run", limits={"AS": 4 << 30})
            assert done.code == 6 and not done.traceback
            space.mount(tmp_path / "small", "100M", remount=True)
            assert (space.path(tmp_path / "small") / "run" / "run.yaml").is_file()  # seen from the test

``tests/robustness/conftest.py`` has the fixture ``forked``.
"""

import contextlib
import ctypes
import mmap
import os
import pkgutil
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import pytest

_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000
_REMOUNT, _PRIVATE, _RECURSIVE = 32, 1 << 18, 1 << 14
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
_IMPORTED_LATE = ("pandas", "torch._dynamo", "torchvision.transforms.v2")
"""Modules that commands import when they need them."""
_NOT_IMPORTED = ("densemble.__main__", "densemble.inference.runtime.backends", "densemble.exporters")


@dataclass(frozen=True)
class Done:
    """End of a command.

    Attributes:
        code: exit code; negative for a signal.
        stdout, stderr: output.
        seconds: duration.
        changes: number of changes of files that ``kill_at_change`` counts.
        timed_out: whether it was killed because it did not end within ``timeout``.
        survivors: whether processes that it started outlived it (they are killed).
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    changes: int
    timed_out: bool
    survivors: bool

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.stderr + self.stdout

    def problem(self, *codes: int) -> str | None:
        """Say what is wrong with the end, if the code is none of ``codes``, it hung, or it printed a traceback."""
        if self.code in codes and not self.traceback and not self.timed_out:
            return None
        ending = "hung" if self.timed_out else f"ended with {self.code}"
        return f"{ending} after {self.seconds:.1f} s: {self.stderr[-600:]}"


@dataclass(frozen=True)
class Command:
    """A command of densemble, or Python code, and its environment.

    Attributes:
        arguments: arguments of ``densemble``.
        code: Python code that is run instead.
        env: environment variables; ``None`` as a value removes one.
        cwd: working directory.
        umask: file mode creation mask.
        limits: resource limits by their names without ``RLIMIT_``, such as ``{"AS": 2 << 30, "NOFILE": 64}``.
        stdout, stderr: a path such as ``/dev/full``; ``"closed"``; ``None`` returns the output.
        kill_after: seconds after which the process is killed.
        kill_at_change: number of the change of a file (open for writing, rename, remove, ...) at which it is killed.
        signal: signal of the kill.
        timeout: seconds after which it is killed and counted as hanging.
    """

    arguments: tuple[str, ...] = ()
    code: str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    cwd: str | None = None
    umask: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    stdout: str | None = None
    stderr: str | None = None
    kill_after: float | None = None
    kill_at_change: int | None = None
    signal: int = signal.SIGKILL
    timeout: float = 120.0


class Space:
    """A forked process in which commands run; it has mounts of its own."""

    def __init__(self, address: str) -> None:
        self._connection = Client(address, "AF_UNIX")
        self._pid: int = self._connection.recv()

    def run(self, *arguments: object, code: str | None = None, **options: Any) -> Done:
        """Run ``densemble`` with these arguments, or ``code``; the other options are those of :class:`Command`."""
        self.start(*arguments, code=code, **options)
        return self.wait()

    def start(self, *arguments: object, code: str | None = None, **options: Any) -> None:
        """Start a command; :meth:`wait` returns its end."""
        self._connection.send(Command(tuple(str(argument) for argument in arguments), code, **options))

    def wait(self) -> Done:
        done = self._connection.recv()
        assert isinstance(done, Done), done
        return done

    def mount(self, folder: Path, size: str, remount: bool = False) -> None:
        """Mount a tmpfs of this size (``"300K"``), which only this space sees; the test is skipped if it may not."""
        if not remount:
            folder.mkdir(parents=True, exist_ok=True)
        self._ask("mount", str(folder), size, remount)

    def unmount(self, folder: Path) -> None:
        self._ask("unmount", str(folder))

    def without_network(self) -> None:
        """Remove all network devices for the commands that follow; the test is skipped if it may not."""
        self._ask("without_network")

    def path(self, path: Path) -> Path:
        """Path under which the test sees a file of this space; symbolic links in it lead outside."""
        return Path(f"/proc/{self._pid}/root{path.absolute()}")

    def _ask(self, *request: object) -> None:
        self._connection.send(request)
        refused = self._connection.recv()
        if refused is not None:
            pytest.skip(f"{request[0]} is not allowed here: {refused}")

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def helper() -> Iterator[Callable[[], contextlib.AbstractContextManager[Space]]]:
    """Start the helper process; yields a function that opens a :class:`Space`."""
    folder = tempfile.mkdtemp(prefix="forked-")
    address = f"{folder}/socket"
    tests = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join(path for path in (str(tests), *sys.path) if path),
    }
    code = f"from robustness.forked import serve; serve({address!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"

        @contextlib.contextmanager
        def open_space() -> Iterator[Space]:
            space = Space(address)
            try:
                yield space
            finally:
                space.close()

        yield open_space
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


# --- the helper process ---------------------------------------------------------------------------------------------


def serve(address: str) -> None:
    """Import densemble, then serve each connection in a fork."""
    _preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # spaces are not waited for
    with Listener(address, "AF_UNIX", backlog=64) as listener:
        print("ready", flush=True)
        while True:
            connection = listener.accept()
            if os.fork() == 0:
                listener.close()
                _leave(_serve_space, connection)
            connection.close()


def _preload() -> None:
    """Import what commands need and prepare the process as tests/conftest.py prepares the tests."""
    import torch

    import densemble

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(densemble.__path__, "densemble."):
        if not module.name.startswith(_NOT_IMPORTED):
            with contextlib.suppress(ImportError):
                import_module(module.name)
    for name in _IMPORTED_LATE:
        import_module(name)

    import densemble.engines.isolation.calls as calls
    import densemble.selection.timing as timing
    from densemble.report.curves import draw_curves

    with tempfile.TemporaryDirectory() as folder:  # reads the fonts
        draw_curves(
            [{"epoch": 1.0, "train_loss": 1.0, "val_loss": 1.0, "val_cc": 0.5}], "", Path(folder) / "curves.png"
        )

    calls.ISOLATED = False  # limits and kills are those of the process of the command
    timing.ROUNDS, timing.ENOUGH_SECONDS = 1, 0.0
    os.fsync = lambda file: None  # no test switches the machine off


def _leave(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a child process, and end it."""
    code = 1
    try:
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _serve_space(connection: Connection) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    is_separate = False
    connection.send(os.getpid())
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while True:
            request = connection.recv()
            if isinstance(request, Command):
                connection.send(_run(request, connection))
                continue
            try:
                if not is_separate:
                    _separate()
                    is_separate = True
                _ADMINISTRATION[request[0]](*request[1:])
                connection.send(None)
            except OSError as error:
                connection.send(str(error))


def _call(function: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _separate() -> None:
    """Give this process mounts of its own, and the right to change them."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _call("unshare", _NEWNS)
    else:
        _call("unshare", _NEWUSER | _NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, _PRIVATE | _RECURSIVE, None)


def _mount(folder: str, size: str, remount: bool) -> None:
    _call("mount", b"tmpfs", folder.encode(), b"tmpfs", _REMOUNT if remount else 0, f"size={size}".encode())


def _unmount(folder: str) -> None:
    _call("umount", folder.encode())


def _without_network() -> None:
    _call("unshare", _NEWNET)


_ADMINISTRATION: dict[str, Callable[..., None]] = {
    "mount": _mount,
    "unmount": _unmount,
    "without_network": _without_network,
}


def _run(command: Command, connection: Connection) -> Done:
    changes = mmap.mmap(-1, 8)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            connection.close()
            _leave(_child, command, out.fileno(), err.fileno(), changes)
        status, timed_out = _wait(pid, command, started)
        seconds = time.monotonic() - started
        survivors = _end_group(pid)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
        count = struct.unpack("q", changes[:8])[0]
        return Done(os.waitstatus_to_exitcode(status), *texts, seconds, count, timed_out, survivors)


def _wait(pid: int, command: Command, started: float) -> tuple[int, bool]:
    killed = timed_out = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status, timed_out
        seconds = time.monotonic() - started
        if not killed and command.kill_after is not None and seconds >= command.kill_after:
            os.kill(pid, command.signal)
            killed = True
        if not timed_out and seconds >= command.timeout:
            timed_out = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002 if seconds < 1 else 0.01)


def _end_group(pid: int) -> bool:
    """Kill the processes that a command left behind; returns whether there were some after half a second."""
    deadline = time.monotonic() + 0.5
    try:
        while time.monotonic() < deadline:
            os.killpg(pid, 0)
            time.sleep(0.01)
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _child(command: Command, out: int, err: int, changes: mmap.mmap) -> None:
    """Run the command in this process, and leave it with its exit code."""
    os.setpgid(0, 0)
    for name, value in command.env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if command.cwd is not None:
        os.chdir(command.cwd)
    if command.umask is not None:
        os.umask(command.umask)
    code: Any = 1
    try:
        _set_streams(command, out, err)
        _count_changes(command, changes)
        for name, limit in command.limits.items():
            number = getattr(resource, f"RLIMIT_{name}")
            resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))
        code = _main(command)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _main(command: Command) -> Any:
    if command.code is not None:
        exec(compile(command.code, "<code>", "exec"), {"__name__": "__main__"})
        return 0
    from densemble.cli import main

    sys.argv = ["densemble", *command.arguments]
    main()
    return 0


def _set_streams(command: Command, out: int, err: int) -> None:
    """Connect the standard streams as a shell does: a closed one is ``None`` in Python."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for number, name, where, captured in ((1, "stdout", command.stdout, out), (2, "stderr", command.stderr, err)):
        if where == "closed":
            os.close(number)
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
            continue
        target = captured if where is None else os.open(where, os.O_WRONLY)
        os.dup2(target, number)
        stream = open(number, "w", buffering=1 if number == 2 else -1, encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _count_changes(command: Command, changes: mmap.mmap) -> None:
    ignored = re.compile(r"/dev/|/proc/|/sys/")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITES or isinstance(path, int):
                return
            if ignored.match(os.fsdecode(path) if isinstance(path, str | bytes) else ""):
                return
        elif event not in _CHANGES:
            return
        count = struct.unpack("q", changes[:8])[0] + 1
        changes[:8] = struct.pack("q", count)
        if count == command.kill_at_change:
            os.kill(os.getpid(), command.signal)

    sys.addaudithook(hook)
