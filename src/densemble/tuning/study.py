"""The study: which values are tried next and which trials fall behind, kept in one file. The only home of Optuna."""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from densemble.errors import ArtifactError, UsageError
from densemble.tuning.result import TrialRecord
from densemble.tuning.space import LogRange, Space

NAME = "densemble"
QUESTION = "question"
ENOUGH = 8
"""Trials trained to their end below which the importance of a parameter is mostly chance."""


class Pruned(Exception):
    """A trial fell behind the others."""


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError('tuning needs optuna, which is not installed; run pip install "densemble[hpo]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def make_pruner(epochs: int) -> Any:
    """Ends a trial whose best epoch so far is below the median of the earlier trials at that epoch."""
    return _optuna().pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps a second process out of ``folder``; a process that is killed lets go of it.

    Raises:
        UsageError: another process is in it.
    """
    with closing(sqlite3.connect(folder / "lock.db", timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise UsageError(f"another process tunes into '{folder}'; wait for it, or choose another folder") from error
        yield


class Study:
    """Trials of one question, in a file that outlives the process.

    What is tried next follows from the seed and the trials before, whether the search was cut off in between or not.

    Args:
        file: ``study.db``; made where it is absent.
        question: what is searched, as plain values; a file of another question is refused.
        space: what may be chosen.
        begin: values of the first trial; what it does not say is drawn.
        higher_is_better: direction of the score.
        epochs: of a trial.
        seed: of the draws.

    Raises:
        UsageError: Optuna is missing, or the file answers another question.
        ArtifactError: the file is damaged.
    """

    def __init__(
        self,
        file: Path,
        question: Mapping[str, Any],
        space: Space,
        begin: Mapping[str, Any],
        higher_is_better: bool,
        epochs: int,
        seed: int,
    ) -> None:
        self._optuna = _optuna()
        self._states = self._optuna.trial.TrialState
        self._space = space
        self._epochs = epochs
        self._seed = seed
        try:
            self._storage = self._optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}")
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=NAME,
                direction="maximize" if higher_is_better else "minimize",
                pruner=make_pruner(epochs),
                load_if_exists=True,
            )
            known = self._study.user_attrs.get(QUESTION)
        except Exception as error:  # of the database's many layers, each has its own
            raise ArtifactError(
                f"cannot read the search in '{file}': {' '.join(str(error).split())[:200]}; choose another folder"
            ) from error
        if known is None:
            self._study.set_user_attr(QUESTION, question)
            self._study.enqueue_trial(dict(begin))
        else:
            _require_same(file, known, question)

    def ask(self) -> "OpenTrial":
        """The next trial; one that was cut off is taken up again."""
        cut_off = self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        begun = [t for t in self._study.get_trials(deepcopy=False) if t.state != self._states.WAITING]
        number = cut_off[0].number if cut_off else len(begun)
        # A sampler that was seeded once would begin anew with the same draws after every restart.
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._seed + number)
        trial = self._taken_up(number) if cut_off else self._study.ask()
        for name, parameter in self._space.items():
            if isinstance(parameter, LogRange):
                trial.suggest_float(name, parameter.low, parameter.high, log=True)
            else:
                trial.suggest_categorical(name, list(parameter))
        return OpenTrial(self._study, trial, self._epochs)

    def _taken_up(self, number: int) -> Any:
        study = self._storage.get_study_id_from_name(NAME)
        return self._optuna.trial.Trial(
            self._study, self._storage.get_trial_id_from_study_id_trial_number(study, number)
        )

    def records(self) -> tuple[TrialRecord, ...]:
        """The trials that ended, in the order in which they began."""
        states = {self._states.COMPLETE: "done", self._states.PRUNED: "pruned", self._states.FAIL: "failed"}
        found = self._study.get_trials(deepcopy=False, states=tuple(states))
        return tuple(
            TrialRecord(
                trial.number,
                states[trial.state],  # type: ignore[arg-type]
                trial.user_attrs.get("score"),
                {name: trial.params[name] for name in self._space if name in trial.params},
                trial.user_attrs.get("epochs"),
                trial.user_attrs.get("seconds"),
                trial.user_attrs.get("error"),
            )
            for trial in found
        )

    def importance(self) -> dict[str, float]:
        """Share of each parameter in the differences of the score (PED-ANOVA, Watanabe et al. 2023), highest first.

        Returns:
            Nothing where fewer than ``ENOUGH`` trials were trained to their end, or all scored the same.
        """
        done = self._study.get_trials(deepcopy=False, states=(self._states.COMPLETE,))
        if len(done) < ENOUGH or len({trial.value for trial in done}) == 1:
            return {}
        shares = self._optuna.importance.get_param_importances(self._study)
        return {name: float(share) for name, share in shares.items()}


class OpenTrial:
    """A trial that is being trained; it must be ended."""

    def __init__(self, study: Any, trial: Any, epochs: int) -> None:
        self._study = study
        self._trial = trial
        self._epochs = epochs
        self._states = _optuna().trial.TrialState
        self.number: int = trial.number
        self.values: dict[str, Any] = dict(trial.params)

    def report(self, epoch: int, score: float) -> None:
        """Tells the score of an epoch.

        Raises:
            Pruned: the trial fell behind.
        """
        self._trial.report(score, epoch)
        if epoch < self._epochs and self._trial.should_prune():
            raise Pruned

    def done(self, score: float, **facts: Any) -> None:
        """It was trained to its end."""
        self._keep({"score": score, **facts})
        self._study.tell(self._trial, score)

    def pruned(self, score: float | None, **facts: Any) -> None:
        """It fell behind."""
        self._keep({"score": score, **facts})
        self._study.tell(self._trial, state=self._states.PRUNED)

    def failed(self, error: str, **facts: Any) -> None:
        """It could not be trained."""
        self._keep({"error": error, **facts})
        self._study.tell(self._trial, state=self._states.FAIL)

    def _keep(self, facts: Mapping[str, Any]) -> None:
        for name, value in facts.items():
            if not (isinstance(value, float) and math.isnan(value)):
                self._trial.set_user_attr(name, value)


def _require_same(file: Path, known: Mapping[str, Any], question: Mapping[str, Any]) -> None:
    before, now = _flat(known), _flat(json.loads(json.dumps(question)))
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"'{file}' holds a search with {name} {_shown(before.get(name))}, and you ask for "
                f"{_shown(now.get(name))}; say the same again, or choose another folder with -o"
            )


def _shown(value: Any) -> str:
    return "none" if value is None else f"'{value}'"


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    """Nested values by dotted name; lists stay whole unless they hold mappings."""
    if isinstance(values, Mapping):
        parts = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
        parts = [(str(number), value) for number, value in enumerate(values)]
    else:
        return {name: values}
    return {key: found for part, value in parts for key, found in _flat(value, f"{name}.{part}".strip(".")).items()}
