"""Shows phases on stderr: a live table in a terminal and a notebook, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO

from densemble.progress.phases import Epoch, Limit, Phase, Silent, is_shown, listening
from densemble.terminal import is_terminal, print_line, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

SECONDS_BETWEEN_LINES = 10.0
FIRST_LINE = 2.0
"""Seconds after which the first line of a phase is printed; shorter phases print nothing."""
REDRAWS_PER_SECOND = 4
LEAST_SHARE = 0.03
"""Share of all members' training after which its end is estimated."""
LABEL_WIDTH, BAR_WIDTH, WIDTH = 34, 9, 77
"""Columns of the table. The characters ``^C`` of an interrupt must fit behind it into a line of 80 columns."""


class Lines(Silent):
    """Listener for a stream that is no terminal: a line per epoch and step, and one every ten seconds.

    Args:
        stream: where to write; default stderr.
        clock: returns seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream or sys.stderr
        self.clock = clock
        self._rates = Rates(clock)
        self._shown: tuple[object, ...] = ()
        self._next_line = clock() + FIRST_LINE

    def changed(self, phases: Sequence[Phase]) -> None:
        now = self.clock()
        steps = tuple((id(phase), phase.done, phase.item) for phase in phases if phase.steps and phase.item)
        if steps and phases[-1].steps and steps != self._shown:
            self._shown = steps
        elif now < self._next_line:
            return
        self._next_line = now + SECONDS_BETWEEN_LINES
        rate = self._rates.of(phases)
        print_line(_joined([*phases, rate]), self.stream)

    def epoch(self, epoch: Epoch) -> None:
        self._next_line = self.clock() + SECONDS_BETWEEN_LINES
        print_line(str(epoch), self.stream)


class LiveTable:
    """Listener that draws a table below the lines of the program: phase, time, and primary metric.

    Args:
        console: console of a terminal or a notebook.
        clock: returns seconds.
    """

    def __init__(self, console: "Console", clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self.phases: Sequence[Phase] = ()
        self.time_limit: Limit | None = None
        self.last: Epoch | None = None
        self.best: Epoch | None = None
        self._rates = Rates(clock)
        self._overall = Rates(clock)
        self._live: Live | None = None
        self._drawn = clock()
        self._begun = False
        self._finished = 0.0

    def resume(self) -> None:
        """Begin to draw."""
        from rich.live import Live

        # A notebook is drawn by the thread that works: the output of another thread may end up in another cell.
        own_thread = not self.console.is_jupyter
        self._live = Live(
            get_renderable=self.table, console=self.console, transient=True, redirect_stdout=False,
            auto_refresh=own_thread, refresh_per_second=REDRAWS_PER_SECOND,
        )  # fmt: skip
        with suppress(OSError):
            self._live.start()

    def suspend(self) -> None:
        """Remove the table."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None

    def changed(self, phases: Sequence[Phase]) -> None:
        self.phases, self._begun = phases, True
        if self.console.is_jupyter and self._live is not None and self.clock() - self._drawn > 1 / REDRAWS_PER_SECOND:
            self._drawn = self.clock()
            self._live.refresh()

    def epoch(self, epoch: Epoch) -> None:
        self.last = epoch
        if epoch.score is not None:
            sign = 1 if epoch.higher_is_better else -1
            if self.best is None or self.best.score is None or sign * epoch.score > sign * self.best.score:
                self.best = epoch
        if self.console.is_jupyter:
            print(epoch)  # one block of text with the other lines of the cell
        else:
            with suppress(OSError):  # the terminal is gone
                self.console.print(visible(str(epoch)), markup=False, highlight=False)

    def limit(self, limit: Limit) -> None:
        self.time_limit = limit

    def table(self) -> "Table":
        """Return the table of the current state; at most 77 columns wide."""
        from rich.table import Table

        table = Table.grid(padding=(0, 1))
        table.add_column(width=LABEL_WIDTH, no_wrap=True, overflow="ellipsis")
        table.add_column(width=BAR_WIDTH, no_wrap=True)
        table.add_column(width=WIDTH - LABEL_WIDTH - BAR_WIDTH - 2, no_wrap=True, overflow="ellipsis")
        phases = list(self.phases)
        if phases:
            outer = phases[0]
            label = " ".join(part for part in (outer.name, outer.count, outer.item) if part)
            details = [outer.unit, *phases[1:], self._rates.of(phases)]
            _add_row(table, label, fraction(_shown(phases)), _joined(details))
        else:
            _add_row(table, "working" if self._begun else "starting", None, "")
        self._add_time(table, phases)
        if self.last is not None and self.last.score is not None:
            label, best = f"{self.last.metric} {self.last.score:.4g}", self.best
            label += "" if best is None else f", best {best.score:.4g}"
            table.add_row(_text(label), "", _text("" if best is None else f"({best.member})"))
        return table

    def _add_time(self, table: "Table", phases: list[Phase]) -> None:
        """Add the row of the time limit or, without one, of the estimated duration of phases with known costs."""
        limit = self.time_limit
        if limit is not None and limit.seconds is not None:
            share = min(limit.used / limit.seconds, 1.0)
            used = f"{clock_text(limit.used)} of {clock_text(limit.seconds)}"
            _add_row(table, "time budget", share, f"{used}, {clock_text(max(limit.seconds - limit.used, 0))} left")
        elif phases and phases[0].costs:
            self._finished = max(self._finished, fraction(phases) or 0.0)
            left = self._overall.left(phases) if self._finished > LEAST_SHARE else None
            text = "" if left is None else f"about {clock_text(left)} left to train"
            _add_row(table, "all members", self._finished, text)


class Rates:
    """Rate and remaining time of phases, measured from the end of the first part.

    Loading and compiling happen once, before the end of the first part.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._phase: Phase | None = None
        self._from: tuple[float, float, int] | None = None

    def of(self, phases: Sequence[Phase]) -> str:
        """Return ``12.3/s, 0:01:40 left``; empty until two parts are finished."""
        left, last = self.left(_shown(phases)), phases[-1] if phases else None
        if left is None or self._from is None or last is None:
            return ""
        done, seconds = last.done - self._from[2], self.clock() - self._from[0]
        rate = f"{rate_text(done / seconds)}, " if len(phases) == 1 and last.unit and seconds > 0 else ""
        return f"{rate}{clock_text(left)} left"

    def left(self, phases: Sequence[Phase]) -> float | None:
        """Return the remaining seconds of the first of these phases; ``None`` if they are unknown."""
        share, now = fraction(phases), self.clock()
        if share is None:
            return None
        first = phases[0]
        if first is not self._phase:
            self._phase, self._from = first, None
        if self._from is None:
            if first.done > first.skipped or (len(phases) > 1 and share > 0):
                self._from = now, share, first.done
            return None
        began, at_first, _ = self._from
        if share <= at_first or now <= began:
            return None
        return (1 - share) * (now - began) / (share - at_first)


def fraction(phases: Sequence[Phase]) -> float | None:
    """Return the finished share of the first of the phases; the others are its current part."""
    share: float | None = None
    for phase in reversed(phases):
        share = phase.fraction(share or 0.0)
    return share


def _shown(phases: Sequence[Phase]) -> Sequence[Phase]:
    """Return the phases of the bar: those inside a step or, for a single phase that is no step, the phase itself."""
    return phases[1:] if len(phases) > 1 or (phases and phases[0].steps) else phases


def _joined(parts: Sequence[object]) -> str:
    """Return the texts that are not empty, each once, separated by commas."""
    return ", ".join(text for text in dict.fromkeys(str(part) for part in parts) if text)


def rate_text(per_second: float) -> str:
    """Return a rate with three digits and without an exponent, such as ``0.25/s`` or ``1480/s``."""
    return f"{per_second:.0f}/s" if per_second >= 999.5 else f"{per_second:.3g}/s"


def clock_text(seconds: float) -> str:
    """Return seconds as ``H:MM:SS``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _add_row(table: "Table", label: str, share: float | None, detail: str) -> None:
    from rich.progress_bar import ProgressBar

    bar = ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, width=BAR_WIDTH)
    table.add_row(_text(label), bar, _text(detail))


def _text(plain: str) -> Any:
    from rich.text import Text

    return Text(visible(plain))


@contextmanager
def shown_progress(lines: bool = True) -> Iterator[None]:
    """Show the phases inside the context on stderr; nothing changes if they are shown already.

    Args:
        lines: whether lines are printed where a live table is impossible.
    """
    if is_shown():
        yield
        return
    console = live_console()
    if console is None:
        with listening(Lines() if lines else None):
            yield
        return
    table = LiveTable(console)
    table.resume()
    try:
        with listening(table):
            yield
    finally:
        table.suspend()


def live_console() -> "Console | None":
    """Return a console for a live table on stderr; ``None`` if stderr is neither a terminal nor a notebook."""
    notebook = "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
    in_terminal = is_terminal(sys.stderr)
    if sys.stderr is None or (not in_terminal and not notebook):
        return None
    from rich.console import Console

    console = Console(stderr=True)
    is_usable = console.is_jupyter or (in_terminal and not console.is_dumb_terminal)
    return console if is_usable else None
