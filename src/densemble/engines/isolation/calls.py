"""Call a function in a separate process, and tell how that process ended."""

import atexit
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from densemble.engines.isolation.memory import oom_kills
from densemble.engines.isolation.messages import (
    NO_LIMITS,
    Job,
    JobLimits,
    Raised,
    Refused,
    Result,
    registered_names,
)
from densemble.engines.isolation.server import ENDED, MESSAGE, STARTED
from densemble.errors import DensembleError, ResourceError
from densemble.progress.phases import Mirror

ISOLATED = True
"""Whether members are trained in separate processes if ``trainer.isolated`` does not say. Tests change it."""
GRACE_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL: a training saves a checkpoint within its epoch."""
DUMP_SECONDS = 0.5
"""Seconds for the traceback of a process that hangs."""
START_SECONDS = 120.0
"""Seconds after which a server that does not answer is given up."""
SERVE = (
    "import signal, sys; [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]; "
    "sys.path[:] = sys.argv[3:]; from densemble.engines.isolation.server import serve; "
    "serve(int(sys.argv[1]), sys.argv[2].split())"
)
PRELOADED = "densemble.engines.isolated_members"
"""Modules that the server imports, separated by spaces."""


class NotPossible(Exception):
    """The function cannot run in another process; nothing has been done."""


class ProcessEnded(DensembleError):
    """The process ended before the function returned.

    Attributes:
        report: traceback of the crash or hang; empty if there is none.
    """

    report = ""


class ProcessOutOfMemory(ProcessEnded, ResourceError):
    """The process was ended by the system, which ran out of memory."""


def is_supported() -> bool:
    """Return whether processes can be forked safely on this system."""
    return sys.platform == "linux"


class _Server:
    """A running server; one job at a time."""

    def __init__(self) -> None:
        self.control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.owner = os.getpid()
        # As in this process, but without the folder that `-c` puts first; CUDA must not start before the fork.
        command = [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", SERVE]  # type: ignore[attr-defined]
        self.process = subprocess.Popen(
            [*command, str(other.fileno()), PRELOADED, *sys.path],
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
        )
        other.close()

    @property
    def is_usable(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def start(self, connection: Connection, faults: IO[bytes]) -> int:
        """Start the process of a job, and return its id."""
        with _open_streams() as streams:
            socket.send_fds(self.control, [b"job"], [connection.fileno(), faults.fileno(), *streams])
        while True:
            kind, child, error = self.receive(START_SECONDS)
            if kind == STARTED and child < 0:
                raise NotPossible(f"no process can be started: {os.strerror(error)}")
            if kind == STARTED:
                return child

    def receive(self, timeout: float | None = None) -> tuple[int, int, int]:
        self.control.settimeout(timeout)
        data = self.control.recv(MESSAGE.size)
        if len(data) < MESSAGE.size:
            raise EOFError
        kind, child, status = MESSAGE.unpack(data)
        return kind, child, status

    def stop(self) -> None:
        self.control.close()
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()


_IDLE: list[_Server] = []


def prepare(isolated: bool | None = None) -> None:
    """Start a server, which imports the training code in the background, if members will need it.

    Args:
        isolated: setting ``trainer.isolated``.
    """
    if ISOLATED if isolated is None else isolated:
        _start_server()


def _start_server() -> None:
    _IDLE[:] = [server for server in _IDLE if server.is_usable]
    if is_supported() and not _IDLE:
        with suppress(OSError):  # no memory or no further process: the caller finds no server
            _IDLE.append(_Server())


@atexit.register
def _stop_servers() -> None:
    while _IDLE:
        _IDLE.pop().stop()


@contextmanager
def _open_streams() -> Iterator[tuple[int, int]]:
    """Yield copies of the descriptors 1 and 2; of /dev/null if they are closed."""
    copies = []
    for descriptor in (1, 2):
        try:
            copies.append(os.dup(descriptor))
        except OSError:
            copies.append(os.open(os.devnull, os.O_WRONLY))
    try:
        yield copies[0], copies[1]
    finally:
        for copy in copies:
            os.close(copy)


def call(function: Callable[..., Any], *arguments: Any, limits: JobLimits = NO_LIMITS) -> Any:
    """Call a function in a separate process and return its result; messages and progress appear here.

    Args:
        function: function at the top level of a module that can be imported.
        arguments: arguments that can be pickled.
        limits: times after which the process is ended.

    Raises:
        NotPossible: another process cannot run it; nothing has been done.
        ProcessEnded: the process ended before the function returned.
        BaseException: what the function raised.
    """
    try:
        payload = pickle.dumps((function, arguments))
    except Exception as error:  # objects of the user may raise anything
        raise NotPossible(f"{type(error).__name__}: {error}") from error
    _start_server()
    if not _IDLE:
        raise NotPossible("no other process can be started here")
    server = _IDLE.pop()
    try:
        result = _Call(server, limits).run(payload)
    finally:
        if server.is_usable:
            _IDLE.append(server)
        else:
            server.stop()
    return result


class _Call:
    """One call: sends the job, replays messages, watches the limits, and ends the process on any exception."""

    def __init__(self, server: _Server, limits: JobLimits) -> None:
        self.server = server
        self.limits = limits
        self.child: int | None = None
        self.status: int | None = None
        self.ending: Refused | Result | Raised | None = None
        self.stopped = ""
        self.mirror = Mirror()

    def run(self, payload: bytes) -> Any:
        ours, theirs = socket.socketpair()
        with os.fdopen(os.memfd_create("faults"), "rb") as faults, Connection(ours.detach()) as connection:
            other = Connection(theirs.detach())
            try:
                self.child = self.server.start(other, faults)
            except NotPossible:
                raise
            except BaseException as error:
                self.server.process.kill()
                if isinstance(error, OSError | EOFError):
                    raise NotPossible("the process that starts trainings has ended") from error
                raise
            finally:
                other.close()
            kills = oom_kills()
            try:
                connection.send(_job(payload))
                self._watch(connection)
            except BaseException:
                self._end(connection)
                raise
            finally:
                self._kill()
                self.mirror.close()
            return self._result(faults, oom_kills() > kills)

    def _watch(self, connection: Connection) -> None:
        """Handle messages until the process has ended, or a limit is reached."""
        started = heard = time.monotonic()
        while self.status is None:
            limits, now = self.limits, time.monotonic()
            if limits.stall is not None and now - heard >= limits.stall:
                self.stopped = limits.stalled.format(limits.stall)
            elif limits.seconds is not None and now - started >= limits.seconds:
                self.stopped = limits.late.format(now - started)
            if self.stopped:
                self._end(connection, dump=True)
                return
            ends = [heard + limits.stall] if limits.stall is not None else []
            ends += [started + limits.seconds] if limits.seconds is not None else []
            if self._handle(connection, max(min(ends) - now, 0.0) if ends else None):
                heard = time.monotonic()

    def _handle(self, connection: Connection, timeout: float | None) -> bool:
        """Wait for messages and handle them; return whether the process sent any."""
        ready = wait([connection, self.server.control], timeout)
        is_heard = False
        if connection in ready:
            is_heard = self._replay(connection)
        if self.server.control in ready:
            try:
                kind, child, status = self.server.receive()
            except (OSError, EOFError):
                self.status = -1  # the server is gone, and with it the process
                return is_heard
            if kind == ENDED and child == self.child:
                while connection.poll(0) and self._replay(connection):
                    pass
                self.status = status
        return is_heard

    def _replay(self, connection: Connection) -> bool:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            time.sleep(0.01)  # the server reports the end
            return False
        if isinstance(message, Refused | Result | Raised):
            self.ending = message
        else:
            message.replay(self.mirror)
        return True

    def _end(self, connection: Connection, dump: bool = False) -> None:
        """End the process: SIGTERM, then SIGKILL."""
        try:
            if dump:
                self._signal(signal.SIGUSR1)
                self._drain(connection, DUMP_SECONDS)
            self._signal(signal.SIGTERM)
            self._drain(connection, GRACE_SECONDS)
        finally:
            self._kill()

    def _drain(self, connection: Connection, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.status is None and (left := until - time.monotonic()) > 0:
            self._handle(connection, left)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        while self.status is None:
            try:
                kind, child, status = self.server.receive(GRACE_SECONDS)
            except (OSError, EOFError):
                self.status = -1
                return
            if kind == ENDED and child == self.child:
                self.status = status

    def _signal(self, number: int) -> None:
        if self.child is not None and self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.child, number)

    def _result(self, faults: IO[bytes], ran_out_of_memory: bool) -> Any:
        ending = self.ending
        if isinstance(ending, Result):
            return ending.value
        if isinstance(ending, Raised):
            raise ending.error
        if isinstance(ending, Refused):
            raise NotPossible(ending.reason)
        assert self.status is not None
        is_killed = os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL and not self.stopped
        error_type = ProcessOutOfMemory if is_killed and ran_out_of_memory else ProcessEnded
        error = error_type(self.stopped or _describe(self.status, ran_out_of_memory))
        faults.seek(0)
        error.report = faults.read().decode("utf-8", "replace")
        raise error


def _describe(status: int, ran_out_of_memory: bool) -> str:
    """Describe how a process ended."""
    if status == -1:
        return "its process ended, with the process that started it"
    if not os.WIFSIGNALED(status):
        return f"its process ended with exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    if number != signal.SIGKILL:
        return f"its process ended with {name} ({signal.strsignal(number)})"
    if ran_out_of_memory:
        return "the system ran out of memory and ended its process; lower batch_size or input_size"
    return "its process was killed (SIGKILL), probably because the system ran out of memory"


def _job(payload: bytes) -> Job:
    import torch

    replaced = tuple(name for name in ("stdout", "stderr") if getattr(sys, name) is not getattr(sys, f"__{name}__"))
    names = ("densemble", "")
    levels = {name: logging.getLogger(name or None).getEffectiveLevel() for name in names}
    return Job(
        payload, str(Path.cwd()), list(sys.path), dict(os.environ), torch.get_num_threads(), levels, registered_names(),
        replaced,
    )  # fmt: skip
