"""How far a command is with a folder of images: a bar in a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 10.0


class ImageProgress:
    """Images done, images per second and the remaining time, on stderr; a context, so that the bar ends.

    The rate counts from the first image's end on: what is loaded and compiled before it happens only once.

    Args:
        stream: where to, default stderr.
        clock: seconds, default those of the machine.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream or sys.stderr
        self.clock = clock
        self._bar: Bar | None = None
        self._started: tuple[float, int] | None = None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self.stream.isatty():
            self._bar = _bar(self.stream)
            self._bar.start()
        self._next_line = self.clock() + _SECONDS_BETWEEN_LINES
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, skipped: int) -> None:
        """Tells of the images that are dealt with.

        Args:
            done: so far, ``skipped`` included.
            total: of the folder.
            skipped: finished before the command began; they are no part of the rate.
        """
        now = self.clock()
        if self._started is None and done > skipped:
            self._started = now, done
        pace = _pace(done, total, now, self._started)
        if self._bar is not None:
            task = self._bar.task_ids[0] if self._bar.task_ids else self._bar.add_task("", pace="")
            self._bar.update(task, completed=done, total=total, pace=pace)
        elif now >= self._next_line:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            self.say(f"{done}/{total} images{pace}")

    def say(self, line: str) -> None:
        """A remark; above the bar, where there is one."""
        if self._bar is None:
            print(line, file=self.stream, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _pace(done: int, total: int, now: float, started: tuple[float, int] | None) -> str:
    """``, 12.3 per second, 0:01:40 left``; nothing until two images have shown the pace."""
    if started is None or done == started[1] or now <= started[0]:
        return ""
    rate = (done - started[1]) / (now - started[0])
    left = round((total - done) / rate)
    return f", {rate:.3g} per second, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


def _bar(stream: TextIO) -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images{task.fields[pace]}"))
    return Progress(*columns, console=Console(file=stream), transient=True)
