"""Progress over a folder of images: a bar in a terminal, otherwise a line every ten seconds."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 10.0


class ImageProgress:
    """Context manager that shows images done, images per second and the remaining time.

    The rate is measured from the end of the first image: loading and compiling happen once, before it.

    Args:
        stream: where to write; default stderr.
        clock: returns seconds; default the monotonic clock.
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
        """Show the current progress.

        Args:
            done: number of finished images, including ``skipped``.
            total: number of images in the folder.
            skipped: number of images finished before the command began; the rate leaves them out.
        """
        now = self.clock()
        if self._started is None and done > skipped:
            self._started = now, done
        rate = _rate_text(done, total, now, self._started)
        if self._bar is not None:
            task = self._bar.task_ids[0] if self._bar.task_ids else self._bar.add_task("", rate="")
            self._bar.update(task, completed=done, total=total, rate=rate)
        elif now >= self._next_line:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            self.say(f"{done}/{total} images{rate}")

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar is None:
            print(line, file=self.stream, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _rate_text(done: int, total: int, now: float, started: tuple[float, int] | None) -> str:
    """``, 12.3 per second, 0:01:40 left``; empty until two images are finished."""
    if started is None or done == started[1] or now <= started[0]:
        return ""
    rate = (done - started[1]) / (now - started[0])
    left = round((total - done) / rate)
    return f", {rate:.3g} per second, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


def _bar(stream: TextIO) -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images{task.fields[rate]}"))
    return Progress(*columns, console=Console(file=stream), transient=True)
