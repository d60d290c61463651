"""Log lines of the package reach a function, the terminal, or only the handlers of the program."""

import logging
from pathlib import Path
from typing import Any

import pytest

import densemble as de
from densemble.messages import shown

log = logging.getLogger("densemble.some.part")


def test_lines_reach_the_function_while_the_context_is_open() -> None:
    root, lines = logging.getLogger("densemble"), list[str]()
    before = (root.level, list(root.handlers))
    with shown(lines.append):
        log.info("%s of %d", "one", 2)
        log.warning("careful")
        log.debug("a detail")
        logging.getLogger("elsewhere").warning("not ours")
    log.info("too late")
    assert lines == ["one of 2", "careful"]
    assert (root.level, root.handlers) == before


def test_an_inner_context_does_not_silence_the_outer_one() -> None:
    outer, inner = list[str](), list[str]()
    with shown(outer.append):
        with shown(inner.append):
            log.info("both")
        with shown(None):
            log.info("outer")
    assert (outer, inner) == (["both", "outer"], ["both"])


def test_an_exception_of_the_function_propagates() -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="step"), shown(stop):
        log.info("step")
    assert logging.getLogger("densemble").handlers == []


def test_the_log_level_of_the_program_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "densemble"), shown(lambda line: None):
        log.debug("a detail")
    assert caplog.messages == ["a detail"], "handlers of the program still get all records"


def test_the_command_line_shows_lines_on_stderr_alone(densemble: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from densemble.nets import backbones

    real = backbones.backbones
    monkeypatch.setattr(backbones, "backbones", lambda *args: [log.info("working"), real(*args)][1])
    for _ in range(2):
        ended = densemble("backbones", "alexnet")
        assert ended.returncode == 0 and ended.stderr == "working\n" and "working" not in ended.stdout
    assert logging.getLogger("densemble").handlers == []


def test_training_prints_its_lines_by_default(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from densemble import run

    monkeypatch.setattr(run, "run_members", lambda *_: log.info("trained"))
    for report, shown_lines in (({}, "trained\n"), ({"report": lambda line: None}, ""), ({"report": None}, "")):
        de.train(scenes, ["resdeconv"], tmp_path / "run", "saliency", **report)
        assert capsys.readouterr() == (shown_lines, "")
