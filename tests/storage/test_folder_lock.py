"""An output folder has one process that writes; the lock of a dead one is free."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from densemble.errors import ResourceError
from densemble.storage.folder_lock import alone_in, folder_lock


def foreign_lock(folder: Path) -> int:
    """Lock a folder as another process does: with a file description of its own."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, json.dumps({"pid": 7, "host": "h", "since": "now", "command": "densemble train"}).encode())
    return descriptor


def test_the_holder_is_named(tmp_path: Path) -> None:
    other = foreign_lock(tmp_path)
    message = r"is in use by process 7 on h since now \(`densemble train`\); wait for it, stop it, or choose another"
    with pytest.raises(ResourceError, match=message), folder_lock(tmp_path):
        pass
    os.close(other)
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\x00" * 5000, b'{"pid": "\x1b[31m"}'])
def test_any_content_of_the_file(content: bytes, tmp_path: Path) -> None:
    other = foreign_lock(tmp_path)
    os.ftruncate(other, 0)
    os.pwrite(other, content, 0)
    with pytest.raises(ResourceError, match="is in use by"), folder_lock(tmp_path):
        pass
    os.close(other)
    with folder_lock(tmp_path):
        pass


def test_one_process_may_lock_again(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"):
        with folder_lock(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / ".lock").is_file()
    assert not (tmp_path / "run").exists(), "it was made for nothing"


def test_results_are_yielded_while_the_folder_is_locked(tmp_path: Path) -> None:
    results = alone_in(tmp_path, iter([1, 2]))
    assert next(results) == 1 and (tmp_path / ".lock").is_file()
    assert list(results) == [2] and not (tmp_path / ".lock").exists()
    early = alone_in(tmp_path, iter([1, 2]))
    next(early)
    early.close()  # type: ignore[attr-defined]
    assert not (tmp_path / ".lock").exists()


def test_a_fork_neither_keeps_nor_ends_the_lock(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is done
            os._exit(0)
        os.close(read)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor := os.open(tmp_path / ".lock", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    with folder_lock(tmp_path):  # the child lives
        pass
    os.close(write)
    os.waitpid(child, 0)


@pytest.mark.parametrize("plant", [lambda p: p.symlink_to("/etc/hostname"), os.mkfifo, lambda p: p.mkdir()])
def test_what_is_no_lock_file_is_not_touched(plant: Callable[[Path], None], tmp_path: Path) -> None:
    plant(tmp_path / ".lock")
    with pytest.raises(ResourceError, match=r"\.lock"), folder_lock(tmp_path):
        pass


def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with folder_lock(tmp_path):
        pass
    assert lines == [f"'{tmp_path}' is not locked (No locks available)"]


def test_only_the_first_process_of_a_distributed_training_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = foreign_lock(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with folder_lock(tmp_path):
        pass
    os.close(other)
