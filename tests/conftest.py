"""Fixtures for all tests: few threads, fixed seeds, no network, no user settings."""

import os

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

import gc
import ipaddress
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

# Tests run in two processes (pytest -n 2): more threads than cores would wait for one another, also in the commands
# that tests start.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)  # the part before yield runs before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Tests that share a fixture of their module run in one process (--dist loadgroup): it is made once."""
    for item in items:
        if isinstance(item, pytest.Function) and (shared := module_fixtures(item)):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {shared}"))
    return (yield)


def module_fixtures(item: pytest.Function) -> str:
    """Names of the fixtures of module scope that a test uses, each with its parameter; empty where it uses none."""
    definitions = item._fixtureinfo.name2fixturedefs
    names = sorted(name for name, found in definitions.items() if found and found[-1].scope == "module")
    chosen = item.callspec.indices if hasattr(item, "callspec") else {}
    return " ".join(f"{name}{chosen.get(name, '')}" for name in names)


def pytest_collection_finish() -> None:
    """What is imported and collected stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("saliency-osie")``: a real data set's folder, or the test is skipped where it is absent."""

    def find(name: str) -> Path:
        folder = SHARED_DATA / name
        if not folder.is_dir():
            pytest.skip(f"real data set '{name}' is absent: {folder} does not exist")
        return folder

    return find


# Session scope for these two: fixtures of module or session scope run before any function-scoped one, and train too.
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
        refuse_remote(socket.AF_INET, (host,))  # a name server is a remote host too
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


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What densemble logs during the test."""
    from densemble.messages import shown

    kept: list[str] = []
    with shown(kept.append):
        yield kept


@pytest.fixture
def densemble(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """``densemble("cuts", "alexnet")``: the command line, in this process; what it does not catch fails the test."""
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
    """A small synthetic saliency set: 24 + 8 scenes of 48x64."""
    from densemble.data.synthetic import make_scenes

    return make_scenes(tmp_path_factory.mktemp("scenes"), train=24, val=8, size=(48, 64))
