"""Time budget of a run: the deadline, the cost of each member, and which members fit into it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from densemble.errors import UsageError

USEFUL_EPOCHS, FEWEST_STEPS, ENOUGH_STEPS = 3, 60, 1000
"""A useful training has at least 3 epochs and 60 optimizer steps; 1000 steps suffice, however long an epoch is."""
SHORTEST = 1.0
"""Seconds for the only member if the budget is already spent."""


class Budget:
    """Time limit of a run, counted from the start of the command.

    Args:
        seconds: limit for everything from start-up to the saved ensemble; ``None``: no limit.
        started: value of ``clock`` when the command started; default now.
        clock: returns the current time in seconds.
    """

    def __init__(
        self, seconds: float | None, started: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self.clock = clock
        self.started = clock() if started is None else started

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
        name: name of the member.
        step: one optimizer step, loading included.
        steps: optimizer steps per epoch.
        epochs: epochs that remain to be trained.
        validation: one validation, after every epoch.
        start: before the first step: cached features, learning-rate range test.
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
        """Seconds that do not depend on the number of epochs."""
        return self.start + self.ending

    @property
    def epoch(self) -> float:
        """Seconds of one epoch with its validation."""
        return self.steps * self.step + self.validation

    @property
    def useful_epochs(self) -> float:
        """Fewest epochs of a useful training; at most the remaining ones."""
        steps = min(max(USEFUL_EPOCHS * self.steps, FEWEST_STEPS), ENOUGH_STEPS)
        return min(steps / self.steps, self.epochs)

    @property
    def least(self) -> float:
        """Seconds of a useful training."""
        # The last epoch may end early, but it is validated like a full one.
        validations = -(-self.useful_epochs // 1)
        return self.fixed + self.useful_epochs * self.steps * self.step + validations * self.validation

    @property
    def most(self) -> float:
        """Seconds of all epochs."""
        return self.fixed + self.epochs * self.epoch

    def epochs_in(self, seconds: float) -> float:
        """Return the epochs expected to fit into a number of seconds."""
        return min(max((seconds - self.fixed) / max(self.epoch, 1e-9), 0.0), self.epochs)

    def scaled(self, factor: float) -> "Cost":
        """Return the cost if training takes ``factor`` times as long.

        The seconds after the training do not change: they are reserved, and the limit depends on them.
        """
        return replace(self, step=factor * self.step, validation=factor * self.validation, start=factor * self.start)


@dataclass(frozen=True)
class Share:
    """Seconds allotted to one member.

    Attributes:
        cost: its expected cost.
        seconds: expected seconds of its training.
        limit: seconds after which its training is stopped. If time is left after all epochs of all members, half of it
            is added to ``seconds``, because the machine may become slower than expected.
    """

    cost: Cost
    seconds: float
    limit: float


@dataclass(frozen=True)
class Plan:
    """Members to train, in this order, and members left out for lack of time.

    Attributes:
        shares: members to train, cheapest first.
        left_out: members left out, cheapest first.
        spare: seconds that remain after a useful training of every member in ``shares``, before they are distributed;
            too few for the first member left out.
    """

    shares: tuple[Share, ...]
    left_out: tuple[Cost, ...]
    spare: float

    @property
    def assembly(self) -> float:
        """Seconds of the assembly of the trained members."""
        return sum(share.cost.assembly for share in self.shares)


def make_plan(costs: Sequence[Cost], seconds: float, require_one: bool = True) -> Plan:
    """Select as many members as possible for a useful training, cheapest first; distribute spare time equally.

    Args:
        costs: costs of all members that remain to be trained.
        seconds: time for their training and their part of the assembly.
        require_one: keep the cheapest member even if the time is too short.
    """
    order = sorted(costs, key=lambda cost: cost.least + cost.assembly)
    count, spare = 0, seconds
    for cost in order:
        if cost.least + cost.assembly > spare:
            break
        count, spare = count + 1, spare - cost.least - cost.assembly
    if count == 0 and order and require_one:
        allotted = max(seconds - order[0].assembly, SHORTEST)
        return Plan((Share(order[0], allotted, allotted),), tuple(order[1:]), 0.0)
    kept = order[:count]
    extras = _distribute(spare, [cost.most - cost.least for cost in kept])
    # The other half of the rest stays for an assembly that takes longer than expected.
    rest = max(spare - sum(extras), 0.0) / 2 / max(count, 1)
    shares = tuple(
        Share(cost, cost.least + extra, cost.least + extra + rest) for cost, extra in zip(kept, extras, strict=True)
    )
    return Plan(shares, tuple(order[count:]), spare)


def _distribute(seconds: float, limits: Sequence[float]) -> list[float]:
    """Return equal parts of ``seconds``, each at most its limit; the rest of a limited part goes to the others."""
    parts = [0.0] * len(limits)
    smallest_first = sorted(range(len(limits)), key=lambda index: limits[index])
    for done, index in enumerate(smallest_first):
        parts[index] = min(limits[index], seconds / (len(limits) - done))
        seconds -= parts[index]
    return parts


def format_seconds(seconds: float) -> str:
    """Format a duration without an exponent: ``160 s``, ``4.2 s``, ``0.05 s``."""
    decimals = 0 if seconds >= 9.95 else 1 if seconds >= 0.95 else 2
    return f"{seconds:.{decimals}f} s"


def parse_time(text: str | float | None) -> float | None:
    """Convert ``"30m"``, ``"90s"``, ``"2h"`` or a number of seconds to seconds.

    Raises:
        UsageError: any other text.
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
