"""Training within a time budget: measure costs, print an estimate, leave out members without enough time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from densemble.engines.budget import Budget, Cost, Plan, make_plan
from densemble.engines.measuring import measure_prediction, measure_scoring, measure_steps
from densemble.engines.member import FAILURES, Built, Outcome, Training, build_member, record_failure, train_member
from densemble.engines.plan import sizes
from densemble.training.callbacks import read_rows
from densemble.training.fit import training_device
from densemble.training.rate import STEPS

Record = Callable[[int, Outcome], None]
ASSEMBLY_START = 4.0
"""Seconds of an assembly that do not depend on the number of members: report, figures, saving."""
ASSEMBLY_FACTOR = 10.0
"""Times that each member's prediction of each validation image is scored while members are selected and explained.

Measured: seconds of an assembly / (validation images x members x seconds to read and score one map).
"""
TIMING_PASSES = 9
"""Forward passes per member that measure milliseconds; see :mod:`densemble.assembly.timing`."""
MEASURING_SHARE, MUCH_MORE = 0.25, 3.0
"""When time is short: share of it that measuring may take, and ratio of multiply-accumulates above which it ends."""
NOT_MEASURED = "not measured, because members that compute less do not all fit into the time"


@dataclass(frozen=True)
class _Scoring:
    """Seconds to read and score one validation image, and an image of that size ``(1, C, H, W)``."""

    seconds: float
    image: Tensor
    images: int

    @property
    def assembly(self) -> float:
        """Seconds of the assembly per member, its milliseconds left aside."""
        return ASSEMBLY_FACTOR * self.images * self.seconds


def train_within(budget: Budget, training: Training, macs: Mapping[int, float], kept: int, record: Record) -> None:
    """Trains as many members as the budget is enough for, the cheapest first.

    Every member is built and measured with one batch. A member is left out when the time that remains is not enough for
    a useful training (:class:`Cost`); this is decided again before each member. At least one member is trained.

    Args:
        budget: its clock has been running since the start of the command.
        training: the run.
        macs: multiply-accumulates up to the cut of each member to train, by its number.
        kept: number of members that are trained already and will be assembled as well.
        record: called with the number and the outcome of each member.
    """
    seconds, image = measure_scoring(training.task, training.data, budget.clock)
    scoring = _Scoring(seconds, image, len(training.data.val))
    reserved = ASSEMBLY_START + kept * scoring.assembly
    built, costs, failed = _measure_all(budget, training, macs, scoring, reserved)
    for number, outcome in failed.items():
        record(number, outcome)
    plan = make_plan(list(costs.values()), budget.left - reserved, kept == 0)
    unmeasured = [number for number in macs if number not in costs and number not in failed]
    for line in _estimate(budget, plan, reserved, [training.name(number) for number in unmeasured]):
        training.report(line)
    waiting, trained = list(costs), kept
    while waiting:
        plan = make_plan([costs[number] for number in waiting], budget.left - reserved, trained == 0)
        if not plan.shares:
            break
        share = plan.shares[0]
        number = next(number for number in waiting if costs[number] is share.cost)
        waiting.remove(number)
        outcome = train_member(training, number, built.pop(number), share.seconds, share.cost.ending)
        record(number, outcome)
        if outcome.state == "done":
            trained, reserved = trained + 1, reserved + share.cost.assembly
    reasons = {number: _reason(costs[number], plan.spare) for number in waiting}
    reasons |= dict.fromkeys(unmeasured, NOT_MEASURED)
    for number, reason in reasons.items():
        training.report(f"{training.name(number)}: left out: {reason}")
        record(number, Outcome(training.name(number), "left out", reason))


def _measure_all(
    budget: Budget, training: Training, macs: Mapping[int, float], scoring: _Scoring, reserved: float
) -> tuple[dict[int, Built], dict[int, Cost], dict[int, Outcome]]:
    """Builds and measures members, and returns those that fail.

    Once a member does not fit into the time, others are not measured that compute much more, or when measuring has
    taken its share.
    """
    built: dict[int, Built] = {}
    costs: dict[int, Cost] = {}
    failed: dict[int, Outcome] = {}
    last = budget.left * (1 - MEASURING_SHARE)
    for number in sorted(macs, key=lambda number: macs[number]):
        excess = [cost.name for cost in make_plan(list(costs.values()), budget.left - reserved, False).left_out]
        bound = min((macs[n] for n, cost in costs.items() if cost.name in excess), default=math.inf)
        if excess and (budget.left < last or macs[number] > MUCH_MORE * bound):
            break
        try:
            built[number] = build_member(training, number)
            costs[number] = _measure(training, number, built[number], scoring, budget)
        except FAILURES as error:
            failed[number] = record_failure(training, number, error)
    return built, costs, failed


def _measure(training: Training, number: int, built: Built, scoring: _Scoring, budget: Budget) -> Cost:
    target_size = sizes(training.config, training.config.members[number])[1]
    settings, folder, images = built.settings, training.folder(number), len(built.train) + len(built.val)
    times = measure_steps(built.model, training.task, built.train, target_size, settings, budget.clock)
    forward = measure_prediction(built.model, scoring.image, training_device(settings.machine), budget.clock)
    done = len(read_rows(folder.metrics)) if folder.last.is_file() else 0
    return Cost(
        name=training.name(number),
        step=times.step,
        steps=math.ceil(len(built.train) / times.batch),
        epochs=max(settings.epochs - done, 0),
        validation=times.validation * len(built.val),
        start=times.features * images + (STEPS * times.step if settings.learning_rate is None else 0.0),
        ending=scoring.images * (forward + scoring.seconds),
        assembly=scoring.assembly + TIMING_PASSES * forward,
    )


def _estimate(budget: Budget, plan: Plan, reserved: float, unmeasured: Sequence[str]) -> list[str]:
    """What is expected, before the first member is trained: lines of text."""
    expected = sum(share.seconds for share in plan.shares)
    lines = [
        f"time: {budget.seconds:.0f} s; used so far {budget.used:.0f} s; expected: training {expected:.0f} s, "
        f"assembly {reserved + plan.assembly:.0f} s"
    ]
    for share in plan.shares:
        epochs = share.cost.epochs_in(share.seconds)
        lines.append(
            f"  {share.cost.name}: {_number(epochs)} of {share.cost.epochs} epochs in {share.seconds:.0f} s "
            f"({share.cost.epoch:.2g} s each)"
        )
    lines += [f"  {cost.name}: left out: {_reason(cost, plan.spare)}" for cost in plan.left_out]
    return lines + [f"  {name}: left out: {NOT_MEASURED}" for name in unmeasured]


def _reason(cost: Cost, spare: float) -> str:
    return (
        f"a useful training ({_number(cost.useful_epochs)} epochs) and its part of the assembly need "
        f"{cost.least + cost.assembly:.0f} s, {max(spare, 0):.0f} s are left"
    )


def _number(epochs: float) -> str:
    """Whole epochs without decimals."""
    return f"{epochs:.0f}" if abs(epochs - round(epochs)) < 0.05 else f"{epochs:.1f}"
