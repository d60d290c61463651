"""Training within a time budget: measure costs, print an estimate, leave out members without enough time."""

import logging
import math
from collections.abc import Callable, Mapping

from densemble.engines.budget import Budget, Cost, Plan, make_plan
from densemble.engines.measuring import ScoringTimes, measure_prediction, measure_scoring, measure_steps
from densemble.engines.member import FAILURES, Outcome, Training, build_member, record_failure, train_member
from densemble.engines.plan import sizes
from densemble.training.callbacks import read_rows
from densemble.training.fit import training_device
from densemble.training.rate import STEPS
from densemble.training.settings import MemberFit

log = logging.getLogger(__name__)
Record = Callable[[int, Outcome], None]
ASSEMBLY_START = 4.0
"""Seconds of an assembly that do not depend on members and images: report, figures, saving."""
ASSEMBLY_BUILDS, ASSEMBLY_PREDICTIONS, ASSEMBLY_SCORES = 3, 2, 10
"""How often an assembly builds each member, predicts each validation image with it, and scores its kept map.

An upper bound: they reserve 27 s for three members and 64 images of 96x128 on one core, whose assembly takes 12 s, and
up to 60 s more where milliseconds of slow members are measured.
"""
OWN_SCORES = 2
"""How often an assembly reads and scores each validation image at its own size."""
TIMING_PASSES = 9
"""Forward passes per member that measure milliseconds; see :mod:`densemble.selection.timing`."""
MEASURING_SHARE, MUCH_MORE = 0.25, 3.0
"""When time is short: share of it that measuring may take, and ratio of multiply-accumulates above which it ends."""
NOT_MEASURED = "not measured, because members that compute less do not all fit into the time"


def train_within(budget: Budget, training: Training, macs: Mapping[int, float], kept: int, record: Record) -> None:
    """Trains as many members as the budget is enough for, the cheapest first.

    Members are built and measured with one batch. A member is left out when the time that remains is not enough for a
    useful training (:class:`Cost`); this is decided again before each member. At least one member is trained.

    Args:
        budget: its clock has been running since the start of the command.
        training: the run.
        macs: multiply-accumulates up to the cut of each member to train, by its number.
        kept: number of members that are trained already and will be assembled as well.
        record: called with the number and the outcome of each member.
    """
    run = _TimedRun(budget, training, macs, kept, record)
    run.measure(MUCH_MORE)
    for line in run.estimate():
        log.info(line)
    run.train()
    while run.unmeasured and run.measure(math.inf):  # the estimate was too high, or a member failed
        run.train()
    for number, reason in run.reasons().items():
        log.warning(f"{training.name(number)}: left out: {reason}")
        record(number, Outcome(training.name(number), "left out", reason))


class _TimedRun:
    """Members that wait for their training, and the time that is left for them.

    Attributes:
        unmeasured: numbers of members, fewest multiply-accumulates first.
        costs, built: of the members that are measured and wait, by number.
        trained: number of members that will be assembled, ``kept`` of them trained by earlier commands.
        assembly, measured: seconds of the assembly of each member that was trained, and of each that was measured.
    """

    def __init__(
        self, budget: Budget, training: Training, macs: Mapping[int, float], kept: int, record: Record
    ) -> None:
        self.budget = budget
        self.training = training
        self.macs = macs
        self.record = record
        self.scoring = measure_scoring(
            training.task, training.data, sizes(training.config, training.config.members[0])[2], budget.clock
        )
        self.unmeasured = sorted(macs, key=lambda number: macs[number])
        self.costs: dict[int, Cost] = {}
        self.built: dict[int, MemberFit] = {}
        self.kept, self.trained = kept, kept
        self.assembly: list[float] = []
        self.measured: list[float] = []

    @property
    def reserved(self) -> float:
        """Seconds of the assembly for the members that are trained; those of earlier commands count as the others."""
        fixed = ASSEMBLY_START + OWN_SCORES * len(self.training.data.val) * self.scoring.own
        return fixed + sum(self.assembly) + self.kept * sum(self.measured) / max(len(self.measured), 1)

    def plan(self) -> Plan:
        """What the time that is left now is enough for."""
        return make_plan(list(self.costs.values()), self.budget.left - self.reserved, self.trained == 0)

    def measure(self, much_more: float) -> int:
        """Builds and measures members; gives the number of those that were measured.

        Once a member does not fit into the time, measuring ends at members that compute ``much_more`` times as much,
        and when it has taken its share of the time.
        """
        last, measured = self.budget.left * (1 - MEASURING_SHARE), 0
        for number in list(self.unmeasured):
            plan = make_plan(list(self.costs.values()), self.budget.left - self.reserved, False)
            excess = [self.macs[n] for n, cost in self.costs.items() if cost in plan.left_out]
            if excess and (self.budget.left < last or self.macs[number] > much_more * min(excess)):
                break
            self.unmeasured.remove(number)
            try:
                self.built[number] = build_member(self.training, number)
                self.costs[number] = _measure(self.built[number], self.scoring, self.budget)
                self.measured.append(self.costs[number].assembly)
                measured += 1
            except FAILURES as error:
                self.built.pop(number, None)
                self.record(number, record_failure(self.training, number, error))
        return measured

    def train(self) -> None:
        """Trains measured members, the cheapest first, while the time is enough for one of them."""
        while (plan := self.plan()).shares:
            share = plan.shares[0]
            number = next(number for number, cost in self.costs.items() if cost is share.cost)
            del self.costs[number]
            outcome = train_member(self.training, number, self.built.pop(number), share.seconds, share.cost.ending)
            self.record(number, outcome)
            if outcome.state == "done":
                self.trained += 1
                self.assembly.append(share.cost.assembly)

    def estimate(self) -> list[str]:
        """What is expected, before the first member is trained: lines of text."""
        plan = self.plan()
        expected = sum(share.seconds for share in plan.shares)
        lines = [
            f"time: {self.budget.seconds:.0f} s; used so far {self.budget.used:.0f} s; expected: training "
            f"{expected:.0f} s, assembly {self.reserved + plan.assembly:.0f} s"
        ]
        for share in plan.shares:
            cost = share.cost
            lines.append(
                f"  {cost.name}: {_number(cost.epochs_in(share.seconds))} of {cost.epochs} epochs in "
                f"{share.seconds:.0f} s ({cost.epoch:.2g} s each)"
            )
        lines += [f"  {cost.name}: left out: {_reason(cost, plan.spare)}" for cost in plan.left_out]
        return lines + [f"  {self.training.name(number)}: left out: {NOT_MEASURED}" for number in self.unmeasured]

    def reasons(self) -> dict[int, str]:
        """Why the members that still wait are left out."""
        spare = self.plan().spare
        return {number: _reason(cost, spare) for number, cost in self.costs.items()} | dict.fromkeys(
            self.unmeasured, NOT_MEASURED
        )


def _measure(built: MemberFit, scoring: ScoringTimes, budget: Budget) -> Cost:
    settings, images = built.settings, len(built.val)
    times = measure_steps(built, budget.clock)
    forward = measure_prediction(built.model, scoring.image, training_device(settings.machine), budget.clock)
    done = len(read_rows(built.folder.metrics)) if built.folder.last.is_file() else 0
    per_image = ASSEMBLY_PREDICTIONS * forward + ASSEMBLY_SCORES * scoring.kept
    return Cost(
        name=built.title,
        step=times.step,
        steps=math.ceil(len(built.train) / times.batch),
        epochs=max(settings.epochs - done, 0),
        validation=times.validation * images,
        start=times.features * (len(built.train) + images)
        + (STEPS * times.step if settings.learning_rate == "auto" else 0.0),
        ending=images * (forward + scoring.own),
        assembly=ASSEMBLY_BUILDS * built.build_seconds + images * per_image + TIMING_PASSES * forward,
    )


def _reason(cost: Cost, spare: float) -> str:
    return (
        f"a useful training ({_number(cost.useful_epochs)} epochs) and its part of the assembly need "
        f"{cost.least + cost.assembly:.0f} s, {max(spare, 0):.0f} s are left"
    )


def _number(epochs: float) -> str:
    """Whole epochs without decimals."""
    return f"{epochs:.0f}" if abs(epochs - round(epochs)) < 0.05 else f"{epochs:.1f}"
