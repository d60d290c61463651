"""Run a search trial by trial; a trial may fail, and the results are written to disk after each one."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densemble.config import RunConfig
from densemble.data.digests import data_digests
from densemble.data.folder import FolderData
from densemble.engines.data_check import describe_changes, require_sound
from densemble.engines.member import FAILURES
from densemble.errors import DensembleError, Terminated, UsageError, error_like, error_text
from densemble.progress.phases import Phase, phase
from densemble.storage.folder_lock import folder_lock
from densemble.storage.runs import MemberFolder, RunFolder
from densemble.storage.writing import write_json, write_text
from densemble.training.callbacks import read_rows, write_rows
from densemble.tuning.result import State, TuneResult
from densemble.tuning.space import Space, initial_values, make_space, with_values
from densemble.tuning.study import OpenTrial, Pruned, Study
from densemble.tuning.trial import TrialInputs, prepare, train_trial

log = logging.getLogger(__name__)
STUDY = "study.db"
WORTH_STARTING = 0.5
"""A trial starts only if this share of the median trial time is left."""


def run_search(
    data: FolderData,
    config: RunConfig,
    out: Path,
    trials: int = 20,
    seconds: float | None = None,
    names: Sequence[str] | None = None,
) -> TuneResult:
    """Search the best settings of the only member of ``config``; see :func:`densemble.tuning.tune`.

    Settings that are not searched keep their values; ``names`` are the parameters to search, see :func:`make_space`.
    """
    end = None if seconds is None else time.monotonic() + seconds
    _require_one_member(config)
    if trials < 1:
        raise UsageError(f"trials must be at least 1, got {trials}")
    space = make_space(config, names)
    with folder_lock(out):
        # Another search is rejected before the data is read, and a new search starts only after the data check.
        study = _open_study(data, config, out, space) if (out / STUDY).is_file() else None
        digests, stored_digests = data_digests(data), out / "data_digests.json"
        if changed := describe_changes(RunFolder(out), digests):
            raise UsageError(f"{changed}; put it back, or choose another folder with -o")
        require_sound(data)
        write_json(stored_digests, digests)
        study = study or _open_study(data, config, out, space)
        active_search = _Search(study, prepare(data, config, out / "cache"), config, out)
        active_search.run(trials, end)
        result = active_search.result()
    if result.best is None:
        raise _no_result(result, active_search.causes)
    return result


def _require_one_member(config: RunConfig) -> None:
    if len(config.members) != 1:
        raise UsageError(f"tune needs one backbone, got {len(config.members)}; name one")
    machine = config.trainer
    if not machine.has_one_device or machine.num_nodes > 1:
        raise UsageError(f"a trial is trained on one device, but trainer.devices is {machine.devices}; leave it out")


def _open_study(data: FolderData, config: RunConfig, out: Path, space: Space) -> Study:
    training = config.members[0].training(config.training)
    settings = config.model_dump(mode="json", exclude={"weights_dir", "trainer"})
    values = {name: list(p) if isinstance(p, tuple) else [p.low, p.high] for name, p in space.items()}
    identity = {"data folder": str(data.path.resolve()), **settings, "space": list(space), "values": values}
    first = initial_values(config, space)
    return Study(out / STUDY, identity, space, first, data.task.higher_is_better, training.epochs, training.seed)


@dataclass(frozen=True)
class _Search:
    """An open search in its folder."""

    study: Study
    inputs: TrialInputs
    config: RunConfig
    out: Path
    causes: list[BaseException] = field(default_factory=list)

    def run(self, trials: int, end: float | None) -> None:
        """Train trials until there are ``trials`` of them or the time is over."""
        with phase("trial", trials, steps=True) as counted:
            self._run(trials, end, counted)

    def _run(self, trials: int, end: float | None, counted: Phase) -> None:
        while (count := len(self.study.records())) < trials:
            counted.start(count, "")
            left = None if end is None else end - time.monotonic()
            if left is not None and not self._is_worth_starting(left):
                log.info(f"time is over after {count} of {trials} trials")
                return
            self._run_trial(self.study.ask(), trials, left)
            self._write()

    def _is_worth_starting(self, left: float) -> bool:
        seconds = [t.seconds for t in self.study.records() if t.state == "done" and t.seconds is not None]
        return left > (WORTH_STARTING * float(np.median(seconds)) if seconds else 0)

    def _run_trial(self, trial: OpenTrial, trials: int, left: float | None) -> None:
        """Train a trial and report its outcome to the study."""
        started, title, metric = time.monotonic(), f"trial {trial.number}", self.inputs.metric
        values = ", ".join(f"{name} {_format_value(value)}" for name, value in trial.values.items())
        log.info(f"{title} ({trial.number + 1} of {trials}): {values}")
        folder = self._folder(trial.number)
        state: State = "done"
        score: float | None = None
        reason: str | None = None
        try:
            config = with_values(self.config, trial.values)
            best = train_trial(self.inputs, config, folder.path, title, left, trial.report)["best"]
            if metric not in best:
                raise DensembleError(f"no epoch has a {metric}; it is undefined on the validation targets")
            score = best[metric]
            log.info(f"{title}: {metric} {score:.4f}")
        except Pruned:
            state, score = "pruned", self._best_score(folder)
            log.info(f"{title}: pruned, because others scored better")
        except Terminated:
            raise
        except FAILURES as error:
            state, reason = "failed", error_text(error)
            self.causes.append(error)
            log.error(f"{title}: FAILED: {reason}")
        seconds = round(time.monotonic() - started, 1)
        trial.end(state, score, epochs=len(_rows(folder)), seconds=seconds, error=reason)

    def _folder(self, number: int) -> MemberFolder:
        return MemberFolder(self.out / "trials" / f"{number:03d}")

    def _best_score(self, folder: MemberFolder) -> float | None:
        scores = [row[self.inputs.metric] for row in _rows(folder) if self.inputs.metric in row]
        return (max if self.inputs.task.higher_is_better else min)(scores, default=None)

    def _write(self) -> None:
        """Write the results so far; called after every trial, so that an interrupted search keeps them."""
        result = self.result()
        write_rows(result.path / "trials.csv", [trial.as_row() for trial in result.trials])
        best = result.best
        if best is not None:
            write_text(result.config, with_values(self.config, best.values).to_yaml())
        for trial in result.trials:
            folder = self._folder(trial.number)
            for file in folder.checkpoints:  # hundreds of megabytes each, and no longer needed
                file.unlink(missing_ok=True)
            if trial != best:
                folder.weights.unlink(missing_ok=True)

    def result(self) -> TuneResult:
        """Return the result so far."""
        higher_is_better = self.inputs.task.higher_is_better
        return TuneResult(self.out, self.inputs.metric, higher_is_better, self.study.records(), self.study.importance())


def _rows(folder: MemberFolder) -> list[dict[str, float]]:
    return read_rows(folder.metrics) if folder.metrics.is_file() else []


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _no_result(result: TuneResult, causes: Sequence[BaseException]) -> DensembleError:
    """Return the error for a search without a completed trial."""
    if not result.trials:
        return UsageError(f"no trial started in '{result.path}'; give more --time")
    reasons = "; ".join(dict.fromkeys(trial.error for trial in result.trials if trial.error))
    cause = causes[0] if causes else None
    return error_like(cause, f"none of {len(result.trials)} trials was trained to its end: {reasons}")
