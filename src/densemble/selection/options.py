"""What may be said about an assembly, and whether it can be done."""

import math
from dataclasses import dataclass
from typing import Literal

from densemble.ensemble.combine import require_rule
from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance
from densemble.errors import UsageError
from densemble.selection.strategies import SELECT
from densemble.tasks import Task

CALIBRATE = ("auto", "none", "temperature", "vector", "variance")
PROMISES = ("none", "set", "interval", "risk")
AUTOMATIC = "auto"


@dataclass(frozen=True)
class Options:
    """How members are chosen, combined, calibrated, and what is promised of the result.

    Attributes:
        select: row of ``SELECT``, or names of candidates joined by commas.
        combine: row of ``COMBINE``, or ``auto``: the best that surely gains over the mean where it was not fitted.
        weights: one per named candidate.
        metric: that is chosen by; ``None``: the task's own.
        budget: milliseconds per image that the chosen may take together; greedy selection then counts gain per
            millisecond.
        calibrate: ``auto``: temperatures where maps are probabilities, variance scaling of values.
        promise: a guarantee to fit on half of the validation images, on which nothing else is fitted.
        level: what may be missed: 0.1 of the pixels, or of what is there.
        confidence: in a promise about risk.
        min_members: how many usable candidates are needed at least.
        folds: of cross-fitting.
        seed: of the intervals, and of the images that are selected on where there are many.
    """

    select: str = "greedy"
    combine: str = "mean"
    weights: tuple[float, ...] | None = None
    metric: str | None = None
    budget: float | None = None
    calibrate: str = "auto"
    promise: Literal["none", "set", "interval", "risk"] | str = "none"
    level: float = 0.1
    confidence: float = 0.95
    min_members: int = 1
    folds: int = 5
    seed: int = 0

    @property
    def named(self) -> tuple[str, ...]:
        """Candidates that are named one by one; empty where a strategy chooses."""
        if self.select in SELECT:
            return ()
        return tuple(name.strip() for name in self.select.split(",") if name.strip())

    def require(self, task: Task) -> None:
        """Checks all that can be checked before anything is read.

        Raises:
            UsageError: what cannot be done, and what can.
        """
        task.objective(self.metric)
        self._require_names()
        if self.combine != AUTOMATIC:
            require_rule(self.combine, task)
        _require_calibration(self.calibrate, task)
        _require_promise(self.promise, task)
        if not 0 < self.level < 1 or not 0 < self.confidence < 1:
            raise UsageError(f"level {self.level:g} and confidence {self.confidence:g} must lie between 0 and 1")
        if self.min_members < 1:
            raise UsageError(f"--min-members {self.min_members}: an ensemble has at least 1 member")
        if self.budget is not None and not (math.isfinite(self.budget) and self.budget > 0):
            raise UsageError(f"--budget {self.budget:g}: give milliseconds per image, more than 0")
        if self.budget is not None and self.select != "greedy":
            raise UsageError(f"--budget needs --select greedy, which counts gain per millisecond, not '{self.select}'")
        if self.weights is not None and self.select in ("greedy", "best", "exhaustive"):
            raise UsageError(f"weights are for named members or for all; --select {self.select} finds its own")

    def _require_names(self) -> None:
        if self.select in SELECT:
            return
        if not self.named:
            raise UsageError(f"--select '{self.select}' names no member; name some, or take {', '.join(SELECT)}")
        twice = next((name for name in self.named if self.named.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"--select names '{twice}' twice; give it a larger weight instead")

    def require_images(self, images: int) -> None:
        """Checks that so many images are enough for the guarantee.

        Raises:
            DataError: they are too few, and how many are needed.
        """
        if self.promise == "risk":
            certified_allowance(self.level, self.confidence, images)
        elif self.promise != "none":
            expected_allowance(self.level, images)


def calibrations_for(task: Task) -> tuple[str, ...]:
    """Ways of calibrating that suit a task, the automatic one first."""
    if task.has_temperature:
        return ("temperature", "vector", "none")
    return ("variance", "none") if task.target_kind == "values" else ("none",)


def _require_calibration(name: str, task: Task) -> None:
    able = ("auto", *calibrations_for(task))
    if name not in able:
        known = "does not suit" if name in CALIBRATE else "is no way of calibrating"
        raise UsageError(f"--calibrate {name} {known} {task.name}; there are: {', '.join(able)}")


def _require_promise(name: str, task: Task) -> None:
    kinds = {"labels": ("set", "risk"), "masks": ("risk",), "values": ("interval",)}
    able = ("none", *kinds.get(task.target_kind, ()))
    if name not in able:
        known = "does not suit" if name in PROMISES else "is no guarantee of"
        raise UsageError(f"--guarantee {name} {known} {task.name}; there are: {', '.join(able)}")
