"""Progress over a folder of images: a bar in a terminal, otherwise a line every ten seconds."""

import io

import pytest

from densemble.commands.progress import ImageProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def output_of(stream: io.StringIO, seconds: float, skipped: int = 0, total: int = 100, images: int = 100) -> str:
    """Output of a command that finishes one image every ``seconds``."""
    clock = Clock()
    with ImageProgress(stream, clock) as progress:
        progress.update(skipped, total, skipped)
        for done in range(skipped + 1, images + 1):
            clock.now += seconds
            progress.update(done, total, skipped)
    return stream.getvalue()


def test_a_line_every_ten_seconds_with_rate_and_remaining_time() -> None:
    lines = output_of(io.StringIO(), 0.5).splitlines()
    assert lines[0] == "20/100 images, 2 per second, 0:00:40 left"
    assert [line.split("/")[0] for line in lines] == ["20", "40", "60", "80", "100"]
    assert lines[-1].endswith("0:00:00 left")


def test_short_command_prints_nothing() -> None:
    assert output_of(io.StringIO(), 0.01) == ""


def test_skipped_images_do_not_change_the_rate() -> None:
    assert output_of(io.StringIO(), 4, skipped=90).splitlines()[0] == "93/100 images, 0.25 per second, 0:00:28 left"


def test_remaining_hours() -> None:
    line = output_of(io.StringIO(), 10, total=1000, images=3).splitlines()[1]
    assert line == "2/1000 images, 0.1 per second, 2:46:20 left"


def test_no_rate_after_one_image() -> None:
    assert output_of(io.StringIO(), 20, total=50, images=1) == "1/50 images\n"


def test_terminal_shows_a_bar_and_unchanged_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream, clock = Terminal(), Clock()
    with ImageProgress(stream, clock) as progress:
        progress.update(0, 4, 0)
        for done in (1, 2, 3):
            clock.now += 2
            progress.update(done, 4, 0)
        progress.say("failed: 'images/[bold]x.jpg' is empty")
        progress.update(4, 4, 0)
    output = stream.getvalue()
    assert "failed: 'images/[bold]x.jpg' is empty\n" in output
    assert "4/4" in output and "per second" in output
