"""Time budget of a run: the deadline, what each member costs, and which members it is enough for."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from densemble.errors import UsageError

USEFUL_EPOCHS, FEWEST_STEPS, ENOUGH_STEPS = 3, 60, 1000
"""A training is useful from 3 epochs and 60 optimizer steps on; 1000 steps are enough whatever the epoch's length."""
SHORTEST = 1.0
"""Seconds that the only member gets when the budget is spent already."""


class Budget:
    """Seconds that a run may take, counted from the start of the command.

    Args:
        seconds: for everything, from start-up to the saved ensemble; ``None``: no limit.
        started: value of ``clock`` when the command started; default now.
        clock: seconds.
    """

    def __init__(
        self, seconds: float | None, started: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self.clock = clock
        self.started = clock() if started is None else started

    @property
    def limited(self) -> bool:
        """Whether there is a deadline."""
        return self.seconds is not None

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    @property
    def left(self) -> float:
        """Seconds until the deadline; negative after it, infinite without one."""
        return float("inf") if self.seconds is None else self.seconds - self.used


@dataclass(frozen=True)
class Cost:
    """Measured cost of one member, in seconds.

    Attributes:
        name: of the member.
        step: one optimizer step, loading included.
        steps: optimizer steps of an epoch.
        epochs: those that remain to be trained.
        validation: after every epoch.
        start: before the first step: features that are kept, learning-rate range test.
        ending: after the last step: predictions of the validation images.
        assembly: this member's part of the assembly.
    """

    name: str
    step: float
    steps: int
    epochs: int
    validation: float
    start: float
    ending: float
    assembly: float

    @property
    def fixed(self) -> float:
        """Whatever the number of epochs."""
        return self.start + self.ending

    @property
    def epoch(self) -> float:
        """One epoch with its validation."""
        return self.steps * self.step + self.validation

    @property
    def useful_epochs(self) -> float:
        """Fewest epochs of a useful training; at most those that were asked for."""
        steps = min(max(USEFUL_EPOCHS * self.steps, FEWEST_STEPS), ENOUGH_STEPS)
        return min(steps / self.steps, self.epochs)

    @property
    def least(self) -> float:
        """A useful training."""
        # The last epoch may end early, but it is validated like a whole one.
        validations = -(-self.useful_epochs // 1)
        return self.fixed + self.useful_epochs * self.steps * self.step + validations * self.validation

    @property
    def most(self) -> float:
        """All epochs."""
        return self.fixed + self.epochs * self.epoch

    def epochs_in(self, seconds: float) -> float:
        """Epochs that can be expected in so many seconds."""
        return min(max((seconds - self.fixed) / max(self.epoch, 1e-9), 0.0), self.epochs)


@dataclass(frozen=True)
class Share:
    """Seconds that one member may take."""

    cost: Cost
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Members that are trained, in this order, and members that the time is not enough for.

    Attributes:
        shares: cheapest first.
        left_out: cheapest first.
        spare: seconds that remain after useful trainings of all that are trained, before they are shared out; they
            are too few for the first member that is left out.
    """

    shares: tuple[Share, ...]
    left_out: tuple[Cost, ...]
    spare: float

    @property
    def assembly(self) -> float:
        """Seconds that the assembly of the trained members takes."""
        return sum(share.cost.assembly for share in self.shares)


def make_plan(costs: Sequence[Cost], seconds: float, require_one: bool = True) -> Plan:
    """As many members as can be trained usefully, the cheapest ones; what remains is shared out equally.

    Args:
        costs: of all members that are still to be trained.
        seconds: for their training and their part of the assembly.
        require_one: keep the cheapest member even where the time is not enough.
    """
    order = sorted(costs, key=lambda cost: cost.least + cost.assembly)
    count, spare = 0, seconds
    for cost in order:
        if cost.least + cost.assembly > spare:
            break
        count, spare = count + 1, spare - cost.least - cost.assembly
    if count == 0 and order and require_one:
        only = Share(order[0], max(seconds - order[0].assembly, SHORTEST))
        return Plan((only,), tuple(order[1:]), 0.0)
    kept = order[:count]
    extra = dict(zip(kept, _share_out(spare, [cost.most - cost.least for cost in kept]), strict=True))
    shares = tuple(Share(cost, cost.least + extra[cost]) for cost in kept)
    return Plan(shares, tuple(order[count:]), spare)


def _share_out(seconds: float, wishes: Sequence[float]) -> list[float]:
    """Equal parts of ``seconds``, none above its wish; what one does not need goes to the others."""
    parts = [0.0] * len(wishes)
    waiting = sorted(range(len(wishes)), key=lambda number: wishes[number])
    for done, number in enumerate(waiting):
        parts[number] = min(wishes[number], seconds / (len(waiting) - done))
        seconds -= parts[number]
    return parts


def parse_time(text: str | float | None) -> float | None:
    """``"30m"``, ``"90s"``, ``"2h"`` or a number of seconds -> seconds.

    Raises:
        UsageError: none of these.
    """
    if text is None or isinstance(text, int | float):
        return text
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text and text[-1] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"time '{text}' is not a duration; write it as 30m, 90s or 2h")
    return seconds
