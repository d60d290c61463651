"""Result of a search: its trials, the best trial, and their files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

State = Literal["done", "pruned", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial that has ended.

    Attributes:
        number: counted from 0; the folder of the trial is ``OUT/trials/NNN``.
        state: ``done``, ``failed``, or ``pruned`` if it was stopped because others scored better.
        score: best score of its epochs, also of a pruned trial.
        values: values of the searched parameters, by name.
        epochs, seconds: duration of the training.
        error: reason of a failure.
    """

    number: int
    state: State
    score: float | None
    values: dict[str, Any]
    epochs: int | None = None
    seconds: float | None = None
    error: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the trial as a flat mapping, for a table."""
        return {
            "trial": self.number, "state": self.state, "score": self.score, **self.values,
            "epochs": self.epochs, "seconds": self.seconds, "error": self.error,
        }  # fmt: skip


@dataclass(frozen=True)
class TuneResult:
    """Result of a search.

    Attributes:
        path: folder of the search.
        metric: name of the metric that compares trials.
        higher_is_better: direction of the metric.
        trials: trials that have ended, in the order in which they started.
        importance: share of each parameter in the variance of the score; empty if there are too few trials.
    """

    path: Path
    metric: str
    higher_is_better: bool
    trials: tuple[TrialRecord, ...]
    importance: dict[str, float]

    @property
    def ranking(self) -> list[TrialRecord]:
        """Trials that were not pruned and did not fail, best first."""
        done = [trial for trial in self.trials if trial.state == "done" and trial.score is not None]
        return sorted(done, key=lambda trial: trial.score or 0.0, reverse=self.higher_is_better)

    @property
    def best(self) -> TrialRecord | None:
        """Best trial; ``None`` if no trial was completed."""
        return next(iter(self.ranking), None)

    @property
    def config(self) -> Path:
        """Path of ``best.yaml``, a run.yaml with the values of the best trial."""
        return self.path / "best.yaml"

    def frame(self) -> "pd.DataFrame":
        """Return a table with one row per trial, in the order in which they started."""
        import pandas as pd

        return pd.DataFrame([trial.as_row() for trial in self.trials]).set_index("trial")
