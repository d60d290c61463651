"""Work in progress. The code that works opens phases; whoever opened a listener shows them.

Without a listener, and in other threads than the one that opened it, phases do nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

T = TypeVar("T")


def _ignored() -> None:
    """Default of a phase without a listener; not a lambda, because phases are pickled for other processes."""


@dataclass
class Phase:
    """A step of the work, such as ``reading 120/480 images`` or ``training 3/7 lite1``.

    Attributes:
        name: what is done; empty: the phase is part of the bar, but not of the text.
        total: number of parts; ``None`` if it is unknown.
        unit: name of the parts.
        steps: whether the parts are long steps: the current one is counted, and its start is shown.
        costs: relative duration of each part; empty: equal.
        done: number of finished parts.
        item: name of the current part.
        skipped: parts that were finished before the phase began; rates leave them out.
    """

    name: str
    total: int | None = None
    unit: str = ""
    steps: bool = False
    costs: Sequence[float] = ()
    done: int = 0
    item: str = ""
    skipped: int = 0
    changed: Callable[[], None] = field(default=_ignored, repr=False)

    def advance(self, count: int = 1) -> None:
        """Count finished parts."""
        self.done += count
        self.changed()

    def start(self, index: int, item: str) -> None:
        """Begin the part with this index."""
        self.done, self.item = index, item
        self.changed()

    def fraction(self, inner: float = 0.0) -> float | None:
        """Return the finished share, of which ``inner`` is that of the current part; ``None`` if it is unknown."""
        if not self.total:
            return None
        if self.costs:
            current = self.costs[self.done] if self.done < len(self.costs) else 0.0
            return min((sum(self.costs[: self.done]) + inner * current) / (sum(self.costs) or 1.0), 1.0)
        return min((self.done + inner) / self.total, 1.0)

    @property
    def count(self) -> str:
        """Number of finished parts, or of the current step, and of all parts; empty if they are unknown."""
        return f"{min(self.done + 1, self.total) if self.steps else self.done}/{self.total}" if self.total else ""

    def __str__(self) -> str:
        parts = (self.name, self.count, self.unit, self.item) if self.name else ()
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch.

    Attributes:
        member: name of the member.
        number, total: number of the epoch, from 1, and of all epochs.
        loss: training loss.
        metric, score: primary metric, and its value on the validation images; ``None`` if it is undefined.
        higher_is_better: direction of the metric.
        seconds: duration.
    """

    member: str
    number: int
    total: int
    loss: float
    metric: str
    score: float | None
    higher_is_better: bool
    seconds: float

    def __str__(self) -> str:
        score = "" if self.score is None else f" {self.metric} {self.score:.4g}"
        return f"{self.member}: epoch {self.number}/{self.total} loss {self.loss:.4g}{score} ({self.seconds:.0f} s)"


class Limit(Protocol):
    """A time limit; see :class:`densemble.engines.budget.Budget`."""

    @property
    def seconds(self) -> float | None: ...

    @property
    def used(self) -> float: ...


class Listener(Protocol):
    """Receives the phases of the work, outermost first, whenever one of them changes."""

    def changed(self, phases: Sequence[Phase]) -> None: ...

    def epoch(self, epoch: Epoch) -> None: ...

    def limit(self, limit: Limit) -> None: ...

    def suspend(self) -> None: ...

    def resume(self) -> None: ...


class Silent:
    """Listener that shows nothing."""

    def changed(self, phases: Sequence[Phase]) -> None:
        pass

    def epoch(self, epoch: Epoch) -> None:
        pass

    def limit(self, limit: Limit) -> None:
        pass

    def suspend(self) -> None:
        pass

    def resume(self) -> None:
        pass


@dataclass
class _Open:
    listener: Listener
    phases: list[Phase] = field(default_factory=list)


_OPEN: ContextVar[_Open | None] = ContextVar("densemble_progress", default=None)


def is_shown() -> bool:
    """Return whether a listener is open in this thread."""
    return _OPEN.get() is not None


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Send the phases inside the context to a listener; ``None`` sends them to nobody."""
    token = _OPEN.set(None if listener is None else _Open(listener))
    try:
        yield
    finally:
        _OPEN.reset(token)


@contextmanager
def phase(
    name: str, total: int | None = None, unit: str = "", *, steps: bool = False, costs: Sequence[float] = ()
) -> Iterator[Phase]:
    """Open a phase, inside the phases that are open; see :class:`Phase` for the arguments."""
    opened = _OPEN.get()
    if opened is None:
        yield Phase(name, total, unit, steps, costs)
        return
    this = Phase(name, total, unit, steps, costs, changed=lambda: opened.listener.changed(opened.phases))
    opened.phases.append(this)
    if not steps:
        this.changed()
    try:
        yield this
    finally:
        # A generator that is not used up ends late, after phases that were opened before it.
        opened.phases[:] = [other for other in opened.phases if other is not this]


def track(
    items: Iterable[T], name: str, total: int | None = None, unit: str = "", *, steps: bool = False
) -> Iterator[T]:
    """Yield items, and count them in a phase; see :class:`Phase` for the arguments."""
    with phase(name, total, unit, steps=steps) as this:
        for item in items:
            yield item
            this.advance()


def show_activity() -> None:
    """Show the open phases again, so that a process that watches the work sees that it goes on."""
    opened = _OPEN.get()
    if opened is not None:
        opened.listener.changed(opened.phases)


def end_epoch(epoch: Epoch) -> None:
    """Show the end of an epoch."""
    opened = _OPEN.get()
    if opened is not None:
        opened.listener.epoch(epoch)


@contextmanager
def suspended() -> Iterator[None]:
    """Show nothing inside the context, in which another process writes to the terminal."""
    set_suspended(True)
    try:
        yield
    finally:
        set_suspended(False)


def set_suspended(is_suspended: bool) -> None:
    """Show nothing from now on, or show the phases again."""
    opened = _OPEN.get()
    if opened is not None:
        (opened.listener.suspend if is_suspended else opened.listener.resume)()


class Mirror:
    """Shows the phases of another process inside the phases that are open here."""

    def __init__(self) -> None:
        self._opened = _OPEN.get()
        self._outer = 0 if self._opened is None else len(self._opened.phases)
        self._phases: dict[int, Phase] = {}

    def show(self, phases: Iterable[tuple[int, Phase]]) -> None:
        """Show these phases, outermost first, each with a number by which it is recognized."""
        if self._opened is None:
            return
        shown = {}
        for number, other in phases:
            this = self._phases.get(number, other)
            if (this.name, this.unit, this.steps) != (other.name, other.unit, other.steps):
                this = other  # numbers of phases that have ended are used again
            this.total, this.done, this.item, this.skipped = other.total, other.done, other.item, other.skipped
            shown[number] = this
        self._phases = shown
        self._opened.phases[self._outer :] = shown.values()
        self._opened.listener.changed(self._opened.phases)

    def close(self) -> None:
        """Remove the phases of the other process."""
        if self._opened is not None:
            del self._opened.phases[self._outer :]


def set_limit(limit: Limit) -> None:
    """Show a time limit."""
    opened = _OPEN.get()
    if opened is not None:
        opened.listener.limit(limit)
