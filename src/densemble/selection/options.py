"""Options of an assembly, and the checks that they can be satisfied."""

import math
from dataclasses import dataclass
from typing import Literal

from densemble.ensemble.combine import require_rule
from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance
from densemble.errors import UsageError, did_you_mean
from densemble.selection.strategies import SELECT
from densemble.tasks import Task

CALIBRATE = ("auto", "none", "temperature", "vector", "variance")
GUARANTEE = ("none", "set", "interval", "risk")
AUTOMATIC = "auto"


@dataclass(frozen=True)
class Options:
    """Selection, combination, calibration and guarantee of an ensemble.

    Attributes:
        select: row of ``SELECT``, or names of candidates joined by commas.
        combine: row of ``COMBINE``, or ``auto``: the best rule with a certain gain over the mean on images that it was
            not fitted on.
        weights: one weight per named candidate.
        metric: metric of the selection; ``None``: the task's primary metric.
        budget: milliseconds per image for all selected members together; greedy selection then maximizes the gain per
            millisecond.
        calibrate: row of ``CALIBRATE``; ``auto``: temperatures for probabilities, variance scaling for values.
        guarantee: guarantee to fit on half of the validation images; nothing else is fitted on that half.
        level: share that the guarantee may miss: 0.1 of the pixels, or of the positive pixels.
        confidence: confidence of a risk guarantee.
        min_members: minimum number of usable candidates.
        folds: number of folds of cross-fitting.
        seed: seed of the intervals, and of the sample of images if there are many.
    """

    select: str = "greedy"
    combine: str = "mean"
    weights: tuple[float, ...] | None = None
    metric: str | None = None
    budget: float | None = None
    calibrate: str = "auto"
    guarantee: Literal["none", "set", "interval", "risk"] | str = "none"
    level: float = 0.1
    confidence: float = 0.95
    min_members: int = 1
    folds: int = 5
    seed: int = 0

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the candidates in ``select``; empty if ``select`` is a strategy."""
        if self.select in SELECT:
            return ()
        return tuple(name.strip() for name in self.select.split(",") if name.strip())

    def require(self, task: Task) -> None:
        """Check everything that can be checked before files are read.

        Raises:
            UsageError: an option is invalid or does not suit the task; the message lists the valid values.
        """
        task.objective(self.metric)
        self._require_names()
        if self.combine != AUTOMATIC:
            require_rule(self.combine, task)
        _require_calibration(self.calibrate, task)
        _require_guarantee(self.guarantee, task)
        if not 0 < self.level < 1 or not 0 < self.confidence < 1:
            raise UsageError(f"level {self.level:g} and confidence {self.confidence:g} must lie between 0 and 1")
        if self.min_members < 1:
            raise UsageError(f"--min-members {self.min_members}: an ensemble has at least 1 member")
        if self.budget is not None and not (math.isfinite(self.budget) and self.budget > 0):
            raise UsageError(f"--budget {self.budget:g}: give milliseconds per image, more than 0")
        if self.budget is not None and self.select != "greedy":
            raise UsageError(
                f"--budget needs --select greedy, which maximizes the gain per millisecond, not '{self.select}'"
            )
        if self.weights is not None and self.select in ("greedy", "best", "exhaustive"):
            raise UsageError(
                f"--select {self.select} computes the weights; give weights only with named members or --select all"
            )

    def _require_names(self) -> None:
        if self.select in SELECT:
            return
        if not self.named:
            raise UsageError(f"--select '{self.select}' names no member; name some, or use {', '.join(SELECT)}")
        duplicate = next((name for name in self.named if self.named.count(name) > 1), None)
        if duplicate is not None:
            raise UsageError(f"--select names '{duplicate}' twice; give it a larger weight instead")

    def require_images(self, images: int) -> None:
        """Check that ``images`` images are enough for the guarantee.

        Raises:
            DataError: too few images; the message contains the required number.
        """
        if self.guarantee == "risk":
            certified_allowance(self.level, self.confidence, images)
        elif self.guarantee != "none":
            expected_allowance(self.level, images)


def calibrations_for(task: Task) -> tuple[str, ...]:
    """Return the calibration methods that suit a task, the automatic one first."""
    if task.has_temperature:
        return ("temperature", "vector", "none")
    return ("variance", "none") if task.target_kind == "values" else ("none",)


def _require_calibration(name: str, task: Task) -> None:
    valid = ("auto", *calibrations_for(task))
    if name not in valid:
        problem = "does not suit" if name in CALIBRATE else "is not a calibration method of"
        hint = "" if name in CALIBRATE else did_you_mean(name, valid)
        raise UsageError(f"--calibrate {name} {problem} {task.name}; {hint}there are: {', '.join(valid)}")


def _require_guarantee(name: str, task: Task) -> None:
    by_target = {"labels": ("set", "risk"), "masks": ("risk",), "values": ("interval",)}
    valid = ("none", *by_target.get(task.target_kind, ()))
    if name not in valid:
        problem = "does not suit" if name in GUARANTEE else "is not a guarantee of"
        hint = "" if name in GUARANTEE else did_you_mean(name, valid)
        raise UsageError(f"--guarantee {name} {problem} {task.name}; {hint}there are: {', '.join(valid)}")
