"""Study: proposes and prunes trials and keeps them in one file; the only module that imports Optuna."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densemble.errors import ArtifactError, UsageError, needs_package
from densemble.tuning.result import State, TrialRecord
from densemble.tuning.space import LogRange, Space

NAME = "densemble"
IDENTITY = "question"
FEWEST_TRIALS = 8
"""With fewer completed trials, the importance of a parameter is mostly chance."""


class Pruned(Exception):
    """Raised to stop a trial because others scored better."""


def _optuna() -> Any:
    with needs_package("optuna", "tuning", "hpo"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _states_by_name() -> dict[State, Any]:
    states = _optuna().trial.TrialState
    return {"done": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}


def make_pruner(epochs: int) -> Any:
    """Return a pruner that stops a trial whose best score so far is below the median of earlier trials."""
    return _optuna().pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))


class Study:
    """Trials of one search, stored in a file.

    The next trial depends only on the seed and the earlier trials, even if the search was interrupted in between.

    Args:
        file: path of ``study.db``, created if absent.
        identity: data, settings and space of the search, as plain values; a file with another identity is rejected.
        space: values of each parameter.
        first: values of the first trial; missing values are sampled.
        higher_is_better: direction of the score.
        epochs: epochs per trial.
        seed: seed of the sampler.

    Raises:
        UsageError: Optuna is missing, or the file holds another search.
        ArtifactError: the file is damaged.
    """

    def __init__(
        self,
        file: Path,
        identity: Mapping[str, Any],
        space: Space,
        first: Mapping[str, Any],
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
            stored = self._study.user_attrs.get(IDENTITY)
        except Exception as error:  # the layers of the database library raise different exceptions
            raise ArtifactError(
                f"cannot read the search in '{file}': {' '.join(str(error).split())[:200]}; choose another folder"
            ) from error
        if stored is None:
            self._study.set_user_attr(IDENTITY, identity)
            self._study.enqueue_trial(dict(first))
        else:
            _require_same(file, stored, identity)

    def ask(self) -> "OpenTrial":
        """Return the next trial; an interrupted trial is resumed first."""
        interrupted = self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        started = [t for t in self._study.get_trials(deepcopy=False) if t.state != self._states.WAITING]
        number = interrupted[0].number if interrupted else len(started)
        # With one fixed seed, the sampler would repeat the same draws after every restart.
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._seed + number)
        trial = self._resumed_trial(number) if interrupted else self._study.ask()
        for name, parameter in self._space.items():
            if isinstance(parameter, LogRange):
                trial.suggest_float(name, parameter.low, parameter.high, log=True)
            else:
                trial.suggest_categorical(name, list(parameter))
        return OpenTrial(self._study, trial, self._epochs)

    def _resumed_trial(self, number: int) -> Any:
        study = self._storage.get_study_id_from_name(NAME)
        return self._optuna.trial.Trial(
            self._study, self._storage.get_trial_id_from_study_id_trial_number(study, number)
        )

    def records(self) -> tuple[TrialRecord, ...]:
        """Return the trials that have ended, in the order in which they started."""
        names = {state: name for name, state in _states_by_name().items()}
        return tuple(
            TrialRecord(
                trial.number,
                names[trial.state],
                values={name: trial.params[name] for name in self._space if name in trial.params},
                **{name: trial.user_attrs.get(name) for name in ("score", "epochs", "seconds", "error")},
            )
            for trial in self._study.get_trials(deepcopy=False, states=tuple(names))
        )

    def importance(self) -> dict[str, float]:
        """Return the share of each parameter in the variance of the score, highest first.

        Computed by PED-ANOVA (Watanabe et al. 2023). The result is empty if fewer than ``FEWEST_TRIALS`` trials are
        complete or all scores are equal.
        """
        done = self._study.get_trials(deepcopy=False, states=(self._states.COMPLETE,))
        if len(done) < FEWEST_TRIALS or len({trial.value for trial in done}) == 1:
            return {}
        shares = self._optuna.importance.get_param_importances(self._study)
        return {name: float(share) for name, share in shares.items()}


class OpenTrial:
    """A running trial; the caller must report its end."""

    def __init__(self, study: Any, trial: Any, epochs: int) -> None:
        self._study = study
        self._trial = trial
        self._epochs = epochs
        self._optuna_states = _states_by_name()
        self.number: int = trial.number
        self.values: dict[str, Any] = dict(trial.params)

    def report(self, epoch: int, score: float) -> None:
        """Report the score of an epoch.

        Raises:
            Pruned: the trial should stop, because others scored better.
        """
        self._trial.report(score, epoch)
        if epoch < self._epochs and self._trial.should_prune():
            raise Pruned

    def end(self, state: State, score: float | None = None, **facts: Any) -> None:
        """Record the end of the trial, with its score and other facts of its :class:`TrialRecord`."""
        for name, value in {"score": score, **facts}.items():
            if value is not None and not (isinstance(value, float) and math.isnan(value)):
                self._trial.set_user_attr(name, value)
        if state == "done":
            self._study.tell(self._trial, score)  # without a state, Optuna records a NaN score as a failed trial
        else:
            self._study.tell(self._trial, state=self._optuna_states[state])


def _require_same(file: Path, stored: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    before, now = _flatten(stored), _flatten(json.loads(json.dumps(identity)))
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"'{file}' holds a search with {name} {_quote(before.get(name))}, and you ask for "
                f"{_quote(now.get(name))}; use the same value, or choose another folder with -o"
            )


def _quote(value: Any) -> str:
    return "none" if value is None else f"'{value}'"


def _flatten(values: Any, name: str = "") -> dict[str, Any]:
    """Return nested values by dotted name; lists are kept whole unless they hold mappings."""
    if isinstance(values, Mapping):
        parts = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
        parts = [(str(index), value) for index, value in enumerate(values)]
    else:
        return {name: values}
    return {key: leaf for part, value in parts for key, leaf in _flatten(value, f"{name}.{part}".strip(".")).items()}
