"""Fixtures for all tests: few threads, fixed seeds, no network, no user settings."""

import os

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

import gc
import ipaddress
import json
import random
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# Tests run in two processes (pytest -n 2), so each process uses one thread; more threads than cores block each other.
# OMP_NUM_THREADS passes the limit on to the commands that tests start.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)  # the part before yield runs before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Run tests that share a module-scoped fixture in one process (--dist loadgroup), so that it is created once."""
    for item in items:
        if isinstance(item, pytest.Function) and (shared := module_fixtures(item)):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {shared}"))
    return (yield)


def module_fixtures(item: pytest.Function) -> str:
    """Names of the module-scoped fixtures that a test uses, each with its parameter index; empty if there are none."""
    definitions = item._fixtureinfo.name2fixturedefs
    names = sorted(name for name, known in definitions.items() if known and known[-1].scope == "module")
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    return " ".join(f"{name}{indices.get(name, '')}" for name in names)


def pytest_collection_finish() -> None:
    """Exclude imported and collected objects, which stay alive, from later garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("saliency-osie")``: folder of a real data set; the test is skipped if it is absent."""

    def find(name: str) -> Path:
        folder = SHARED_DATA / name
        if not folder.is_dir():
            pytest.skip(f"real data set '{name}' is absent: {folder} does not exist")
        return folder

    return find


# These two have session scope, because module-scoped fixtures, which also train, run before function-scoped ones.
@pytest.fixture(scope="session", autouse=True)
def no_personal_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("DENSEMBLE_WEIGHTS_DIR", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        refuse_remote(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        refuse_remote(self.family, address)
        return connect_ex(self, address)

    def guarded_resolve(host: Any, *args: Any, **options: Any) -> Any:
        refuse_remote(socket.AF_INET, (host,))  # a name server is a remote host, too
        return resolve(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_resolve)
        yield


def refuse_remote(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address[0]):
        raise OSError(f"tests have no network: connection to {address[0]!r} refused by tests/conftest.py")


def is_loopback(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def no_sync() -> Iterator[None]:
    """Do not wait for the disk: no test switches the machine off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def trained_in_this_process() -> Iterator[None]:
    """Train members in the process of the tests: they patch functions, and a server takes 5 s to start.

    Tests of processes set ``trainer.isolated``; see tests/robustness/test_member_failures.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("densemble.engines.isolation.calls.ISOLATED", False)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_timing_round() -> Iterator[None]:
    """Measure the time of candidates in one round; tests/selection/test_timing.py tests the number of rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("densemble.selection.timing.ROUNDS", 1)
        patch.setattr("densemble.selection.timing.ENOUGH_SECONDS", 0.0)
        yield


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@dataclass(frozen=True)
class Finished:
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Messages that densemble logs during the test."""
    from densemble.messages import shown

    messages: list[str] = []
    with shown(messages.append):
        yield messages


@pytest.fixture
def densemble(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """``densemble("cuts", "alexnet")`` runs a command in this process; an uncaught exception fails the test."""
    from densemble.cli import main

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["densemble", *(str(argument) for argument in arguments)])
        capfd.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        finally:
            signal.signal(signal.SIGTERM, before)
        return Finished(code or 0, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small synthetic saliency data set: 24 training and 8 validation scenes of 48x64."""
    from densemble.data.synthetic import make_scenes

    return make_scenes(tmp_path_factory.mktemp("scenes"), train=24, val=8, size=(48, 64))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of the robustness tests, see tests/robustness/conftest.py."""
    rows = [
        {**json.loads(value), "seconds": round(test.duration)}
        for outcome in ("passed", "failed")
        for test in terminalreporter.stats.get(outcome, [])
        for key, value in test.user_properties
        if key == "robustness" and test.when == "call"
    ]
    if rows:
        terminalreporter.section("robustness")
        terminalreporter.write_line(f"{'cases':>7} {'problems':>9} {'seconds':>8}  test")
        for row in sorted(rows, key=lambda row: str(row["test"])):
            note = f" ({row['note']})" if row["note"] else ""
            line = f"{row['cases']:>7} {row['problems']:>9} {row['seconds']:>8}  {row['test']}{note}"
            terminalreporter.write_line(line)
