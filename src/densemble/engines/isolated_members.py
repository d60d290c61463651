"""Measure and train members in separate processes: a crash, a hang or an exit ends one member only."""

import logging
import math
import time
from dataclasses import replace

from densemble import errors
from densemble.engines.budget import Cost
from densemble.engines.isolation import calls
from densemble.engines.isolation.calls import NotPossible, ProcessEnded, call, is_supported
from densemble.engines.isolation.messages import JobLimits
from densemble.engines.measuring import ScoringTimes
from densemble.engines.member import FAILURES, Outcome, Training, build_member, record_failure, train_member
from densemble.engines.member_cost import measure_cost
from densemble.errors import Terminated
from densemble.progress.display import shown_progress
from densemble.storage.run_records import MemberState, optional_record
from densemble.storage.runs import MemberFolder
from densemble.user_code import is_user_function

log = logging.getLogger(__name__)
LATE_FACTOR, LATE_SECONDS = 1.5, 60.0
"""A training with a time limit is ended after this factor times the limit, and these seconds."""
MEASURING_SECONDS = 60.0
"""Fewest seconds after which measuring a member is ended."""


def train_isolated(
    training: Training, index: int, seconds: float | None = None, ending: float = 0.0, expected: float = 0.0
) -> Outcome:
    """Train a member as :func:`train_member` does, in a separate process if that is possible.

    Args:
        training: the run.
        index: index of the member.
        seconds, ending: see :func:`train_member`.
        expected: seconds of the shortest useful training.
    """
    name = training.name(index)
    latest = None if seconds is None else LATE_FACTOR * max(seconds, expected) + LATE_SECONDS
    try:
        _require_possible(training, index)
        with shown_progress():
            return call(_train, training, index, seconds, ending, limits=_limits(training, latest))  # type: ignore[no-any-return]
    except NotPossible as reason:
        if str(reason):
            log.info(f"{name}: trained in this process: {reason}")
    except ProcessEnded as error:
        return record_failure(training, index, error, crash=error.report)
    return train_member(training, index, seconds, ending)


def measure_isolated(training: Training, index: int, scoring: ScoringTimes, left: float) -> Cost | Outcome:
    """Build and measure a member, in a separate process if that is possible.

    Args:
        training: the run.
        index: index of the member.
        scoring: seconds of scoring one image.
        left: seconds left for the whole run.

    Returns:
        Its cost, or its outcome if it failed.
    """
    try:
        _require_possible(training, index)
        limits = _limits(training, max(left / 2, MEASURING_SECONDS))
        return call(measure_member, training, index, scoring, left, limits=limits)  # type: ignore[no-any-return]
    except NotPossible:
        return measure_member(training, index, scoring, left)
    except ProcessEnded as error:
        return record_failure(training, index, error, crash=error.report)


def measure_member(training: Training, index: int, scoring: ScoringTimes, left: float) -> Cost | Outcome:
    """Build and measure a member in this process; see :func:`measure_isolated`."""
    try:
        return measure_cost(build_member(training, index), scoring, left, time.monotonic)
    except Terminated:
        raise
    except FAILURES as error:
        return _sendable(record_failure(training, index, error))


def crashed_last(training: Training, indices: list[int]) -> list[int]:
    """Order members so that those whose process crashed come after the others."""
    return sorted(indices, key=lambda index: _has_crashed(training.folder(index)))


def _has_crashed(folder: MemberFolder) -> bool:
    record = optional_record(folder.record, MemberState, "the member is trained again")
    return record is not None and bool(record.get("crashed"))


def _train(training: Training, index: int, seconds: float | None, ending: float) -> Outcome:
    try:
        return _sendable(train_member(training, index, seconds, ending))
    except KeyboardInterrupt as error:  # raised by code of the user: Ctrl-C does not reach this process
        return _sendable(record_failure(training, index, error))


def _sendable(outcome: Outcome) -> Outcome:
    """Return an outcome without a cause that the other process may not know."""
    is_known = isinstance(outcome.cause, errors.DensembleError) and type(outcome.cause).__module__ == errors.__name__
    return outcome if is_known else replace(outcome, cause=None)


def _limits(training: Training, seconds: float | None) -> JobLimits:
    trainer = training.config.trainer
    # Processes that train on several devices report nothing while they train.
    stall = trainer.timeout if trainer.has_one_device and trainer.num_nodes == 1 else None
    return JobLimits(
        stall=stall,
        seconds=None if seconds is None or math.isinf(seconds) else seconds,
        stalled="no batch was finished for {:g} s (trainer.timeout); its process was ended",
        late="not finished after {:.0f} s, long after its time limit; its process was ended",
    )


def _require_possible(training: Training, index: int) -> None:
    """Check whether the member can be trained in another process.

    Raises:
        NotPossible: it cannot; the reason is empty if the settings say so.
    """
    trainer, member = training.config.trainer, training.config.members[index]
    if not (calls.ISOLATED if trainer.isolated is None else trainer.isolated):
        raise NotPossible("")
    if not is_supported():
        raise NotPossible("processes are forked on Linux only" if trainer.isolated else "")
    if training.callbacks.callbacks:
        raise NotPossible("callbacks are objects of this process")
    parts = [member.backbone, member.head or "", *training.config.loss.split("+")]
    local = [part for part in parts if is_user_function(part) and part.startswith("__main__:")]
    if local:
        raise NotPossible(f"'{local[0]}' is defined in the program itself; define it in a module that can be imported")
