"""Train within a time budget: measure costs, log an estimate, leave out members that do not fit."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from densemble.engines.budget import Budget, Cost, Plan, format_seconds, make_plan
from densemble.engines.isolated_members import crashed_last, measure_isolated, train_isolated
from densemble.engines.measuring import measure_scoring
from densemble.engines.member import Outcome, Training
from densemble.engines.plan import sizes
from densemble.progress.phases import Phase, phase, track

log = logging.getLogger(__name__)
Record = Callable[[int, Outcome], None]
ASSEMBLY_START = 4.0
"""Seconds of an assembly that do not depend on members or images: report, figures, saving."""
FULL_SIZE_SCORES = 2
"""How often an assembly reads and scores each validation image at its full size."""
MEASURING_SHARE, MUCH_MORE = 0.25, 3.0
"""If the time is short, measuring ends after this share of it, or at this ratio of multiply-accumulates."""
NOT_MEASURED = "not measured, because members that compute less do not all fit into the time"


def train_within(budget: Budget, training: Training, macs: Mapping[int, float], kept: int, record: Record) -> None:
    """Train as many members as fit into the budget, cheapest first.

    Members are built and measured with one batch. A member is left out if the remaining time is too short for a useful
    training (:class:`Cost`); this is decided again before each member, with the speed of the finished trainings. At
    least one member is trained.

    Args:
        budget: time limit, counted from the start of the command.
        training: the run.
        macs: multiply-accumulates up to the cut of each member to train, by its index.
        kept: number of members that are already trained and will also be assembled.
        record: called with the index and the outcome of each member.
    """
    run = _TimedRun(budget, training, macs, kept, record)
    run.measure(MUCH_MORE)
    for line in run.estimate():
        log.info(line)
    run.train()
    while run.unmeasured and run.measure(math.inf):  # time is left: the estimate was too high, or a member failed
        run.train()
    for index, reason in run.reasons().items():
        log.warning(f"{training.name(index)}: left out: {reason}")
        record(index, Outcome(training.name(index), "left out", reason))


@dataclass
class _TimedRun:
    """Members that wait for their training, and the time left for them.

    Attributes:
        unmeasured: indices of members that are not measured yet, fewest multiply-accumulates first.
        costs: measured costs of the members that are not trained yet, by index.
        announced: members that the estimate before the first training leaves out.
        trained: number of members that will be assembled, including ``kept`` members of earlier commands.
        assembly, measured: assembly seconds of each trained member, and of each measured member.
        expected, taken: seconds of the finished trainings: measured in advance, and as it turned out.
    """

    budget: Budget
    training: Training
    macs: Mapping[int, float]
    kept: int
    record: Record
    costs: dict[int, Cost] = field(default_factory=dict)
    assembly: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    announced: set[int] = field(default_factory=set)
    expected: float = 0.0
    taken: float = 0.0

    def __post_init__(self) -> None:
        map_size = sizes(self.training.config, self.training.config.members[0]).stored
        self.scoring = measure_scoring(self.training.task, self.training.data, map_size, self.budget.clock)
        self.unmeasured = crashed_last(self.training, sorted(self.macs, key=lambda index: self.macs[index]))
        self.trained = self.kept

    @property
    def reserved(self) -> float:
        """Assembly seconds of the trained members; those of earlier commands count as the mean of the measured ones."""
        fixed = ASSEMBLY_START + FULL_SIZE_SCORES * len(self.training.data.val) * self.scoring.full_size
        return fixed + sum(self.assembly) + self.kept * sum(self.measured) / max(len(self.measured), 1)

    @property
    def slowness(self) -> float:
        """Seconds that the finished trainings took, divided by those expected; 1 before the first one."""
        return self.taken / self.expected if self.expected > 0 else 1.0

    def plan(self, require_one: bool = False) -> Plan:
        """Plan the trainings that fit into the time left, at the speed of the finished ones."""
        costs = [cost.scaled(self.slowness) for cost in self.costs.values()]
        return make_plan(costs, self.budget.left - self.reserved, require_one)

    def _index(self, cost: Cost) -> int:
        return next(index for index in self.costs if self.training.name(index) == cost.name)

    def measure(self, much_more: float) -> int:
        """Build and measure members; return the number of measured members.

        Once a member does not fit into the time, measuring ends at the first member that computes ``much_more`` times
        as much, or when measuring has taken its share of the time.
        """
        least_left, measured = self.budget.left * (1 - MEASURING_SHARE), 0
        for index in track(list(self.unmeasured), "timing training steps", len(self.unmeasured), "members"):
            excess = [self.macs[self._index(cost)] for cost in self.plan().left_out]
            if excess and (self.budget.left < least_left or self.macs[index] > much_more * min(excess)):
                break
            self.unmeasured.remove(index)
            cost = measure_isolated(self.training, index, self.scoring, self.budget.left)
            if isinstance(cost, Outcome):
                self.record(index, cost)
                continue
            self.costs[index] = cost
            self.measured.append(cost.assembly)
            measured += 1
        return measured

    def train(self) -> None:
        """Train measured members, cheapest first, while one of them fits into the time left."""
        with phase("training", len(self.training.config.members), steps=True) as members:
            self._train(members)

    def _train(self, members: Phase) -> None:
        total = len(self.training.config.members)
        while (plan := self.plan(self.trained == 0)).shares:
            share = plan.shares[0]
            index = self._index(share.cost)
            cost, name = self.costs.pop(index), self.training.name(index)
            if index in self.announced:
                log.info(f"{name}: fits into the time after all{self._speed()}")
            members.start(total - len(self.costs) - len(self.unmeasured) - 1, name)
            started = self.budget.clock()
            outcome = train_isolated(self.training, index, share.limit, cost.ending, cost.least)
            self.record(index, outcome)
            if outcome.epochs > 0:
                self.taken += self.budget.clock() - started
                self.expected += cost.fixed + outcome.epochs * cost.epoch
            if outcome.state == "done":
                self.trained += 1
                self.assembly.append(cost.assembly)
            if self.unmeasured and self.budget.left > self.reserved and not self.plan().left_out:
                self.measure(MUCH_MORE)  # trainings are faster than expected, or one failed: more members may fit

    def _speed(self) -> str:
        return f"; trainings took {self.slowness:.0%} of the time expected for their epochs" if self.expected else ""

    def estimate(self) -> list[str]:
        """Return the expected times, before the first member is trained, as lines of text."""
        plan = self.plan(self.trained == 0)
        self.announced = {self._index(cost) for cost in plan.left_out} | set(self.unmeasured)
        expected = sum(share.seconds for share in plan.shares)
        lines = [
            f"time: {self.budget.seconds:.0f} s; used so far {self.budget.used:.0f} s; expected: training "
            f"{expected:.0f} s, assembly {self.reserved + plan.assembly:.0f} s"
        ]
        for share in plan.shares:
            cost = share.cost
            lines.append(
                f"  {cost.name}: {_format_epochs(cost.epochs_in(share.seconds))} of {cost.epochs} epochs in "
                f"{format_seconds(share.seconds)} ({format_seconds(cost.epoch)} each)"
            )
        lines += [f"  {cost.name}: left out: {_reason(cost, plan.spare)}" for cost in plan.left_out]
        return lines + [f"  {self.training.name(index)}: left out: {NOT_MEASURED}" for index in self.unmeasured]

    def reasons(self) -> dict[int, str]:
        """Return the reasons why the waiting members are left out, by index."""
        spare = self.plan().spare
        waiting = {index: _reason(cost.scaled(self.slowness), spare) for index, cost in self.costs.items()}
        return waiting | dict.fromkeys(self.unmeasured, NOT_MEASURED)


def _reason(cost: Cost, spare: float) -> str:
    return (
        f"a useful training ({_format_epochs(cost.useful_epochs)} epochs) and its part of the assembly need "
        f"{cost.least + cost.assembly:.0f} s, {max(spare, 0):.0f} s are left"
    )


def _format_epochs(epochs: float) -> str:
    """Format a number of epochs; whole numbers have no decimals."""
    return f"{epochs:.0f}" if abs(epochs - round(epochs)) < 0.05 else f"{epochs:.1f}"
