"""Functions in separate processes: results, messages, limits, and how a process that ended is described."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from densemble.engines.isolation import calls
from densemble.engines.isolation.calls import NotPossible, ProcessEnded, ProcessOutOfMemory, call, is_supported
from densemble.engines.isolation.messages import JobLimits
from densemble.errors import DivergedError, ResourceError
from densemble.nets.heads import HEADS
from densemble.progress.phases import Epoch, Phase, Silent, end_epoch, listening, phase, track

pytestmark = [
    pytest.mark.xdist_group("isolated"),  # one server for all
    pytest.mark.skipif(not is_supported(), reason="processes are forked on Linux only"),
]
EPOCH = Epoch("net", 1, 2, 0.5, "cc", 0.25, True, 1.0)


def talk(text: str) -> dict[str, Any]:
    logging.getLogger("densemble.test").info("log %s", text)
    warnings.warn(f"warning {text}", RuntimeWarning, stacklevel=1)
    print("printed", text)
    with phase("epoch", 2, steps=True) as epochs:
        epochs.start(1, "second")
        end_epoch(EPOCH)
        for _ in track(range(3), "reading", 3, "images"):
            pass
    return {"process": os.getpid(), "folder": str(Path.cwd()), "variable": os.environ.get("TALK"), "path": sys.path}


class Recorder(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.epochs: list[Epoch] = []

    def changed(self, phases: Any) -> None:
        self.texts.append(", ".join(map(str, phases)))

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)


def test_messages_and_progress_appear_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALK", "yes")
    recorder = Recorder()
    with listening(recorder), phase("training", 1, steps=True) as outer:
        outer.start(0, "net")
        with pytest.warns(RuntimeWarning, match="warning loud"):
            result = call(talk, "loud")
        open_phases = [str(outer)]
    assert result["process"] != os.getpid() and result["folder"] == str(tmp_path)
    assert result["variable"] == "yes" and result["path"] == sys.path
    assert lines == ["log loud"] and capsys.readouterr().out == "printed loud\n"
    assert recorder.epochs == [EPOCH]
    assert "training 1/1 net, epoch 2/2 second" in recorder.texts
    assert open_phases == ["training 1/1 net"] and recorder.texts[0] == "training 1/1 net"


def raise_error(error: BaseException) -> None:
    raise error


def test_exceptions_are_raised_here() -> None:
    with pytest.raises(DivergedError, match="the loss"):
        call(raise_error, DivergedError("the loss"))


def end(how: str) -> None:
    {
        "exit": lambda: os._exit(3),
        "abort": os.abort,
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }[how]()


@pytest.mark.parametrize(("how", "text"), [("exit", "exit code 3"), ("abort", "SIGABRT"), ("kill", "SIGKILL")])
def test_a_process_that_ends(how: str, text: str) -> None:
    with pytest.raises(ProcessEnded, match=text) as caught:
        call(end, how)
    assert ("test_calls.py" in caught.value.report) == (how == "abort")
    assert call(os.getpid) != os.getpid(), "the next call works"


def test_a_process_that_the_system_ended_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([3, 4])
    monkeypatch.setattr(calls, "oom_kills", lambda: next(counts))
    with pytest.raises(ProcessOutOfMemory, match="ran out of memory") as caught:
        call(end, "kill")
    assert isinstance(caught.value, ResourceError)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.parametrize("limits", [JobLimits(stall=0.5), JobLimits(seconds=0.5)], ids=["stall", "time"])
def test_a_process_that_does_not_end(limits: JobLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "DUMP_SECONDS", 0.1)
    with pytest.raises(ProcessEnded, match=r"no progress for 0\.5 s|not finished after") as caught:
        call(sleep, 60.0, limits=limits)
    assert "in sleep" in caught.value.report


def test_an_exception_here_ends_the_process(tmp_path: Path) -> None:
    """A function that receives the log lines raises, as Ctrl-C does."""

    class Refusing(Silent):
        def changed(self, phases: list[Phase]) -> None:
            raise KeyboardInterrupt

    with listening(Refusing()), pytest.raises(KeyboardInterrupt):
        call(report_and_sleep, tmp_path / "process")
    process = int((tmp_path / "process").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def report_and_sleep(file: Path) -> None:
    file.write_text(str(os.getpid()))
    with phase("waiting", 1):
        time.sleep(60)


def test_what_another_process_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotPossible, match="pickle"):
        call(lambda: 0)
    monkeypatch.setitem(HEADS, "mine", HEADS["fpn"])
    with pytest.raises(NotPossible, match="HEADS has the row 'mine' only in this program"):
        call(os.getpid)


PROGRAM = """
import sys, time
from pathlib import Path
from densemble.engines.isolation.calls import call
sys.path.insert(0, sys.argv[1])
import test_calls
call(test_calls.report_and_sleep, Path(sys.argv[2]))
"""


@pytest.mark.slow  # it starts a second server
def test_nothing_outlives_a_killed_program(tmp_path: Path) -> None:
    file = tmp_path / "process"
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(file)])
    try:
        while not file.is_file() or not file.read_text():
            assert program.poll() is None
            time.sleep(0.05)
        process = int(file.read_text())
        server = int(Path(f"/proc/{process}/stat").read_text().rsplit(")")[-1].split()[1])
    finally:
        program.kill()
        program.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (runs(process) or runs(server)):
        time.sleep(0.05)
    assert not runs(process) and not runs(server)


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")")[-1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow  # it starts a second server
def test_calls_in_threads_do_not_wait_for_each_other() -> None:
    processes: list[int] = []
    threads = [threading.Thread(target=lambda: processes.append(call(os.getpid))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(processes)) == 2
