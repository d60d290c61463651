"""The server: a process with one thread that has imported the training code and forks a process for each job.

A fork of the main process is not possible: OpenMP and CUDA do not survive it. The server never computes anything, so
that its forks can. Nothing here may call CUDA.
"""

import gc
import os
import select
import signal
import socket
import struct
from collections.abc import Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Never

STARTED, ENDED = 0, 1
MESSAGE = struct.Struct("<iii")
"""``STARTED``, a process id and 0, or -1 and an error number. ``ENDED``, a process id and its status (waitpid(2))."""
DESCRIPTORS = 4
"""Descriptors of a request: connection of the job, file for tracebacks of crashes, stdout, stderr."""


def serve(control: int, modules: Sequence[str]) -> Never:
    """Fork a process for each request on a socket, until the process at its other end is gone.

    Args:
        control: file descriptor of the socket.
        modules: modules to import first; the forks need not import them again.
    """
    try:
        import_module("densemble.engines.isolation.child")
        for module in modules:
            import_module(module)
    except Exception:  # the other process sees the end, and goes on without this one
        os._exit(1)
    gc.freeze()  # the forks share the memory of the imports as long as nothing writes to it
    parent, requests, children = os.getppid(), socket.socket(fileno=control), set[int]()
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while os.getppid() == parent:
        ready, _, _ = select.select([control, woken], [], [], 1.0)
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(requests, children)
        if control in ready:
            data, descriptors, _, _ = socket.recv_fds(requests, 16, DESCRIPTORS)
            if not data:
                break
            try:
                child = _fork(descriptors, (woken, waker, control))
                children.add(child)
                requests.send(MESSAGE.pack(STARTED, child, 0))
            except OSError as error:
                requests.send(MESSAGE.pack(STARTED, -1, error.errno or 0))
            for descriptor in descriptors:
                os.close(descriptor)
    for child in children:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


def _fork(descriptors: Sequence[int], unused: Sequence[int]) -> int:
    """Fork a process that runs a job; return its id.

    Args:
        descriptors: see ``DESCRIPTORS``.
        unused: descriptors that the process closes.
    """
    from densemble.engines.isolation.child import run_job

    server = os.getpid()
    child = os.fork()
    if child != 0:
        return child
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in unused:
        os.close(descriptor)
    connection, faults, *streams = descriptors
    for target, descriptor in enumerate(streams, start=1):
        os.dup2(descriptor, target)
    run_job(Connection(connection), faults, server)


def _report_ended(requests: socket.socket, children: set[int]) -> None:
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        children.discard(child)
        try:
            requests.send(MESSAGE.pack(ENDED, child, status))
        except OSError:  # the other process is gone; the next request says so
            return
