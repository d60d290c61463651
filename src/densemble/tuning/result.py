"""What a search leaves: its trials, the best of them, and the files that say so."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from densemble.storage.runs import write_text

if TYPE_CHECKING:
    import pandas as pd

State = Literal["done", "pruned", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial that ended.

    Attributes:
        number: from 0; its folder is ``OUT/trials/NNN``.
        state: ``pruned`` where it fell behind the others and was ended.
        score: best of its epochs; of a trial that was pruned, so far.
        values: what was chosen, by name.
        epochs, seconds: how long it trained.
        error: why it failed.
    """

    number: int
    state: State
    score: float | None
    values: dict[str, Any]
    epochs: int | None = None
    seconds: float | None = None
    error: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Flat values, for a table."""
        return {
            "trial": self.number, "state": self.state, "score": self.score, **self.values,
            "epochs": self.epochs, "seconds": self.seconds, "error": self.error,
        }  # fmt: skip


@dataclass(frozen=True)
class TuneResult:
    """What a search found.

    Attributes:
        path: folder of the search.
        metric: what trials are compared by.
        higher_is_better: its direction.
        trials: those that ended, in the order in which they began.
        importance: share of each parameter in the differences of the score; empty where trials are too few to tell.
    """

    path: Path
    metric: str
    higher_is_better: bool
    trials: tuple[TrialRecord, ...]
    importance: dict[str, float]

    @property
    def ranking(self) -> list[TrialRecord]:
        """The trials that were trained to their end, best first."""
        done = [trial for trial in self.trials if trial.state == "done" and trial.score is not None]
        return sorted(done, key=lambda trial: trial.score or 0.0, reverse=self.higher_is_better)

    @property
    def best(self) -> TrialRecord | None:
        """``None``: no trial was trained to its end."""
        return next(iter(self.ranking), None)

    @property
    def config(self) -> Path:
        """``best.yaml``: a run.yaml with the best trial's values."""
        return self.path / "best.yaml"

    def frame(self) -> "pd.DataFrame":
        """One row per trial, in the order in which they began."""
        import pandas as pd

        return pd.DataFrame([trial.as_row() for trial in self.trials]).set_index("trial")


def write_trials(path: Path, trials: Sequence[TrialRecord]) -> None:
    """Writes ``trials.csv``."""
    rows = [trial.as_row() for trial in trials]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
