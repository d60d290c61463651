"""The helper that runs commands in forked processes: exit codes, limits, kills, file systems, output."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

Forked = Callable[[], Any]


def test_ends_limits_and_kills(forked: Forked, tmp_path: Path) -> None:
    with forked() as space:
        assert "densemble" in space.run("--version").stdout
        assert space.run("trian").code == 2
        assert space.run(code="1 / 0").traceback
        assert space.run(code="import os; os.abort()").code == -signal.SIGABRT
        assert space.run(code="bytearray(1 << 30)", limits={"AS": 1 << 29}).code == 1
        assert space.run(code="import time; time.sleep(60)", kill_after=0.05).code == -signal.SIGKILL
        assert space.run(code="import time; time.sleep(60)", timeout=0.1).timed_out
        code = "for name in 'abc': open(name, 'w').close()"
        assert space.run(code=code, cwd=str(tmp_path), kill_at_change=2).code == -signal.SIGKILL
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert space.run(code=code, cwd=str(tmp_path)).changes == 3
        assert space.run(code="import os; print(os.environ['A'])", env={"A": "b"}).stdout == "b\n"
        assert space.run(code="print(1)", stderr="closed").stdout == "1\n"
        assert space.run(code="import os, time\nif os.fork() == 0: time.sleep(60)").survivors


def test_file_system(forked: Forked, tmp_path: Path) -> None:
    with forked() as space:
        space.mount(tmp_path, "64K")
        file = tmp_path / "file"
        full = space.run(code=f"open({str(file)!r}, 'wb').write(bytes(1 << 20))")
        assert full.code == 1 and "No space left" in full.stderr
        space.mount(tmp_path, "4M", remount=True)
        assert space.run(code=f"open({str(file)!r}, 'wb').write(bytes(1 << 20))").code == 0
        assert space.path(file).stat().st_size == 1 << 20
        assert not file.exists()  # the file system of the test itself
