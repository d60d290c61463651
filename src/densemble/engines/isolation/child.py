"""The process of a job: runs the function, and sends its result, messages and progress."""

import atexit
import ctypes
import faulthandler
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Never, TextIO

import torch

from densemble.engines.isolation.messages import (
    EpochEnded,
    Job,
    Logged,
    Phases,
    Printed,
    Raised,
    Refused,
    Result,
    Send,
    Suspended,
    Warned,
    registered_names,
)
from densemble.errors import Terminated
from densemble.progress.phases import Epoch, Limit, Phase, _ignored, listening

SECONDS_BETWEEN_PHASES = 0.05
_DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""


def run_job(connection: Connection, faults: int, server: int) -> Never:
    """Run the job that ``connection`` sends, and end the process.

    Args:
        connection: connection to the process that started the job.
        faults: file descriptor for tracebacks of crashes.
        server: process id of the server.
    """
    code = 1
    try:
        _die_with(server)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the other process ends the job
        signal.signal(signal.SIGTERM, _terminate)
        faulthandler.enable(file=faults)
        faulthandler.register(signal.SIGUSR1, file=faults)
        atexit._clear()
        code = _run(connection)
        for process in multiprocessing.active_children():  # loader workers
            process.terminate()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except Terminated:
        code = 143
    finally:
        os._exit(code)


def _die_with(server: int) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != server:  # it ended before prctl
        os._exit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(143)


def _run(connection: Connection) -> int:
    send = _Sender(connection)
    job: Job = connection.recv()
    try:
        function, arguments = _prepare(job, send)
    except Exception as error:  # code of the user may raise anything
        send(Refused(f"{type(error).__name__}: {error}"))
        return 0
    threading.Thread(target=_exit_at_end_of, args=(connection,), daemon=True).start()
    with listening(_Listener(send)):
        try:
            value = function(*arguments)
        except Terminated:
            raise
        except BaseException as error:
            send(Raised(_picklable(error)))
        else:
            send(Result(value))
    return 0


def _prepare(job: Job, send: Send) -> tuple[Any, Any]:
    """Make this process like the other one; return the function and its arguments."""
    os.chdir(job.folder)
    sys.path[:] = job.search_path
    os.environ.clear()
    os.environ.update(job.environment)
    torch.set_num_threads(job.threads)
    logging.getLogger().addHandler(_Handler(send))
    for name, level in job.levels.items():
        logging.getLogger(name).setLevel(level)
    warnings.showwarning = _warning_sender(send)
    for stream in job.forwarded:
        setattr(sys, stream, _Stream(send, stream))
    for name, rows in registered_names().items():
        if missing := sorted(job.registered[name] - rows):
            raise ValueError(f"{name} has the row '{missing[0]}' only in this program")
    function, arguments = pickle.loads(job.call)
    return function, arguments


def _exit_at_end_of(connection: Connection) -> None:
    """End this process when the other one is gone, which never sends anything else."""
    try:
        connection.poll(None)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Sender:
    """Sends messages from all threads of this process, but not from processes that it forks."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __call__(self, message: Any) -> None:
        if os.getpid() != self._process:
            return
        with self._lock:
            self.connection.send(message)


class _Handler(logging.handlers.QueueHandler):
    def __init__(self, send: Send) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self.send(Logged(record.__dict__))


def _warning_sender(send: Send) -> Any:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        send(Warned(str(message), category.__name__, filename, lineno))

    return show


class _Stream:
    """Text stream whose text the other process prints."""

    encoding = "utf-8"

    def __init__(self, send: Send, name: str) -> None:
        self.send = send
        self.name = name

    def write(self, text: str) -> int:
        self.send(Printed(self.name, text))
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class _Listener:
    """Sends the progress of the function; changes that follow each other fast are left out."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self._steps: tuple[object, ...] = ()
        self._sent = 0.0

    def changed(self, phases: Sequence[Phase]) -> None:
        steps, now = tuple((id(phase), phase.done, phase.item) for phase in phases if phase.steps), time.monotonic()
        if steps == self._steps and now - self._sent < SECONDS_BETWEEN_PHASES:
            return
        self._steps, self._sent = steps, now
        self.send(Phases(tuple((id(phase), replace(phase, changed=_ignored)) for phase in phases)))

    def epoch(self, epoch: Epoch) -> None:
        self.send(EpochEnded(epoch))

    def limit(self, limit: Limit) -> None:
        pass

    def suspend(self) -> None:
        self.send(Suspended(True))

    def resume(self) -> None:
        self.send(Suspended(False))
