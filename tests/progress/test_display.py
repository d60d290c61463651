"""Progress: lines where there is no terminal, a table of at most 77 columns in a terminal, and what both contain."""

import io
import os
import pty
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from densemble.progress.display import (
    Lines,
    LiveTable,
    Rates,
    fraction,
    live_console,
    rate_text,
    shown_progress,
)
from densemble.progress.phases import Epoch, Phase, Silent, end_epoch, is_shown, listening, phase, set_limit, track


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Limit:
    seconds: float | None = 1800.0
    used = 450.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def epoch(member: str, number: int, score: float | None) -> Epoch:
    return Epoch(member, number, 20, 0.41234, "cc", score, True, 12.4)


def lines_of(clock: Clock, seconds: float, skipped: int = 0, total: int = 100, images: int = 100) -> list[str]:
    """Lines of a command that finishes one image every ``seconds``."""
    stream = io.StringIO()
    with listening(Lines(stream, clock)), phase("predicting", total, "images") as predicting:
        predicting.skipped = skipped
        for done in range(1, images + 1):
            clock.now += 0.0 if done <= skipped else seconds
            predicting.advance()
    return stream.getvalue().splitlines()


def test_a_line_every_ten_seconds_with_rate_and_remaining_time(clock: Clock) -> None:
    lines = lines_of(clock, 0.5)
    assert [line.split("/")[0] for line in lines] == [f"predicting {n}" for n in (4, 24, 44, 64, 84)]
    assert lines[1] == "predicting 24/100 images, 2/s, 0:00:38 left"


def test_a_short_command_prints_nothing(clock: Clock) -> None:
    assert lines_of(clock, 0.01) == []


def test_skipped_images_do_not_change_the_rate(clock: Clock) -> None:
    assert lines_of(clock, 4, skipped=90)[1] == "predicting 94/100 images, 0.25/s, 0:00:24 left"


def test_remaining_hours(clock: Clock) -> None:
    assert lines_of(clock, 10, total=1000, images=3)[1] == "predicting 2/1000 images, 0.1/s, 2:46:20 left"


def test_no_rate_after_one_image(clock: Clock) -> None:
    assert lines_of(clock, 20, total=50, images=1) == ["predicting 1/50 images"]


def test_a_line_per_step_and_epoch_without_control_characters(clock: Clock) -> None:
    stream = io.StringIO()
    with listening(Lines(stream, clock)), phase("training", 2, steps=True) as members:
        for index, name in enumerate(("lite0", "lite1")):
            members.start(index, name)
            with phase("epoch", 20, steps=True) as epochs, phase("", 8) as batches:
                for number in range(2):
                    epochs.start(number, "")
                    batches.advance(8)
                    end_epoch(epoch(name, number + 1, 0.8123))
    expected = [
        line
        for index, name in enumerate(("lite0", "lite1"), 1)
        for line in (
            f"training {index}/2 {name}",
            *(f"{name}: epoch {number}/20 loss 0.4123 cc 0.8123 (12 s)" for number in (1, 2)),
        )
    ]
    assert stream.getvalue().splitlines() == expected
    assert re.search(r"[\x00-\x09\x0b-\x1f]", stream.getvalue()) is None


def rendered(table: LiveTable) -> list[str]:
    table.console.file = stream = io.StringIO()
    table.console.print(table.table())
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.fixture
def table(clock: Clock) -> LiveTable:
    return LiveTable(Console(file=io.StringIO(), width=80, color_system=None), clock)


def test_the_table_shows_phase_time_and_primary_metric(table: LiveTable, clock: Clock) -> None:
    assert rendered(table)[0].startswith("starting")
    with listening(table), phase("training", 7, steps=True) as members:
        set_limit(Limit())
        members.start(2, "lite1")
        end_epoch(epoch("lite0", 1, 0.83))
        end_epoch(epoch("lite1", 1, 0.81))
        with phase("epoch", 20, steps=True) as epochs, phase("", 10) as batches:
            batches.advance()
            rendered(table)  # the terminal draws the table four times per second
            clock.now += 10
            epochs.start(1, "")
            first, second, third = rendered(table)
    assert re.fullmatch(r"training 3/7 lite1 .+ epoch 2/20, 0:03:09 left", first), first
    assert re.fullmatch(r"time budget .+ 0:07:30 of 0:30:00, 0:22:30 left", second), second
    assert re.fullmatch(r"cc 0.81, best 0.83 +\(lite0\)", third), third


def test_no_row_is_wider_than_77_columns_whatever_the_names_are(table: LiveTable) -> None:
    name = "tf_efficientnet_lite0_with_a_very_long_name_[bold]_in_it"
    with listening(table), phase("training", 100, steps=True, costs=[1.0] * 100) as members:
        members.start(50, name)
        end_epoch(epoch(name, 1, 0.81))
        with phase(name, 2000, "images") as images:
            images.advance(100)
            rows = rendered(table)
    assert len(rows) == 3 and all(len(row) <= 77 for row in rows) and "…" in rows[0]


@pytest.mark.parametrize(
    ("outer", "inner", "detail"),
    [
        ("timing members", ("round", 25, 10), "round 11/25"),
        ("maps", ("member", 12, 9), "member 10/12"),
    ],
)
def test_the_steps_of_an_assembly_fit_with_their_remaining_time(
    table: LiveTable, clock: Clock, outer: str, inner: tuple[str, int, int], detail: str
) -> None:
    name, total, done = inner
    with listening(table), phase("assembling", 5, steps=True) as steps:
        steps.start(1, outer)
        for _ in track(range(done + 1), name, total, steps=True):
            for _ in track(range(14), "", 14):
                rendered(table)
                clock.now += 1
                row = rendered(table)[0]
    assert row.startswith(f"assembling 2/5 {outer} ") and detail in row, "without the number of images times members"
    assert re.search(r", 0:0\d:\d\d left$", row), row


def test_rates_have_no_exponent() -> None:
    assert [rate_text(rate) for rate in (0.25, 12.34, 1234.5, 1e6)] == ["0.25/s", "12.3/s", "1234/s", "1000000/s"]


def test_another_item_of_the_same_step_is_a_line(clock: Clock) -> None:
    stream = io.StringIO()
    with listening(Lines(stream, clock)), phase("assembling", 5, steps=True) as steps:
        steps.start(1, "timing members")
        steps.start(1, "maps")
    assert stream.getvalue().splitlines() == ["assembling 2/5 timing members", "assembling 2/5 maps"]


def test_the_end_of_all_members_is_estimated_from_their_costs(table: LiveTable, clock: Clock) -> None:
    with listening(table), phase("training", 2, steps=True, costs=(1.0, 3.0)) as members:
        members.start(0, "small")
        with phase("epoch", 10, steps=True) as epochs:
            for number in range(10):
                epochs.start(number, "")
                rendered(table)
                clock.now += 6
        members.start(1, "large")
        assert "about 0:03:00 left to train" in rendered(table)[1], "a quarter of the cost took 60 s"


def test_fraction_of_nested_phases() -> None:
    outer, inner = Phase("training", 4, done=1), Phase("epoch", 2, done=1)
    assert fraction([outer, inner]) == pytest.approx(1 / 4 + 1 / 2 / 4)
    assert fraction([Phase("loading")]) is None and fraction([]) is None
    weighted = Phase("training", 2, costs=(1.0, 3.0), done=1)
    assert fraction([weighted, inner]) == pytest.approx((1 + 3 / 2) / 4)
    assert Rates(Clock()).of([]) == ""


def test_phases_nest_and_end_in_any_order() -> None:
    seen: list[list[str]] = []

    class Recorder(Silent):
        def changed(self, phases: object) -> None:
            seen.append([str(phase) for phase in phases])  # type: ignore[attr-defined]

    def late() -> Iterator[int]:
        yield from track(range(3), "generated")

    with listening(Recorder()), phase("outer", 2):
        unfinished = late()
        next(unfinished)
        with phase("inner", 5) as inner:
            inner.advance()
        del unfinished  # ends its phase after inner, which was opened later
        with phase("last"):
            pass
    assert (
        seen[0] == ["outer 0/2"]
        and ["outer 0/2", "generated", "inner 1/5"] in seen
        and seen[-1] == ["outer 0/2", "last"]
    )


def test_other_threads_and_code_without_a_listener_show_nothing() -> None:
    states: list[bool] = []
    with listening(Silent()):
        worker = threading.Thread(target=lambda: states.append(is_shown()))
        worker.start()
        worker.join()
        assert is_shown()
    assert states == [False] and not is_shown()
    assert list(track([1, 2], "alone")) == [1, 2]


def test_a_pipe_is_no_terminal_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert live_console() is None
    with shown_progress(lines=False), phase("x", 2) as steps:
        steps.advance()
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_terminal_shows_the_table_and_keeps_whole_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with shown_progress(), phase("reading", 4, "images") as reading:
            reading.advance(2)
            time.sleep(0.3)  # the table is drawn four times per second
            print("failed: 'images/[bold]x.jpg' is empty", file=sys.stderr)
            end_epoch(epoch("lite0", 1, 0.8123))
        terminal.flush()
        shown = b""
        while select.select([reader], [], [], 0.2)[0]:
            shown += os.read(reader, 65536)
    os.close(reader)
    text = shown.decode()
    assert "reading 2/4 " in text
    assert "failed: 'images/[bold]x.jpg' is empty\r\n" in text
    assert "lite0: epoch 1/20 loss 0.4123 cc 0.8123 (12 s)\r\n" in text
