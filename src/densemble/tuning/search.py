"""The search: one trial after the other, each of which may fail; what was found is on disk after every one."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemble.config import RunConfig
from densemble.data.digests import data_digests
from densemble.data.folder import FolderData
from densemble.engines.data_check import require_sound, what_changed
from densemble.errors import DensembleError, UsageError
from densemble.storage.runs import MemberFolder, require_writable, write_json, write_text
from densemble.training.callbacks import read_rows
from densemble.tuning.result import TuneResult, write_trials
from densemble.tuning.space import Space, make_space, own_values, with_values
from densemble.tuning.study import OpenTrial, Pruned, Study, only_one
from densemble.tuning.trial import Material, prepare, train_trial

log = logging.getLogger(__name__)
STUDY = "study.db"
WORTH_STARTING = 0.5
"""Share of a usual trial's time that must be left for another one to begin."""


def run_search(
    data: FolderData,
    config: RunConfig,
    out: Path,
    trials: int = 20,
    seconds: float | None = None,
    names: Sequence[str] | None = None,
) -> TuneResult:
    """Searches the best settings of a run's only member; called again with the same words it goes on.

    Args:
        data: images and maps.
        config: what is not searched keeps its setting.
        out: folder of the search.
        trials: how many there are to be in the end, those of earlier calls included.
        seconds: after which no trial begins and the running one comes to its end.
        names: what is searched; see :func:`make_space`.

    Raises:
        UsageError: wrong settings, Optuna is missing, or ``out`` holds another search.
        DataError: images or maps that cannot be used.
        DensembleError: no trial was trained to its end: the first reason.
    """
    end = None if seconds is None else time.monotonic() + seconds
    _require_single(config)
    if trials < 1:
        raise UsageError(f"trials must be at least 1, got {trials}")
    space = make_space(config, names)
    require_writable(out)
    with only_one(out):
        # Another search is refused before data is read, and a search is begun only with sound data.
        study = _open_study(data, config, out, space) if (out / STUDY).is_file() else None
        digests, place = data_digests(data), out / "data_digests.json"
        if changed := what_changed(place, digests):
            raise UsageError(f"{changed}; put it back, or choose another folder with -o")
        require_sound(data)
        write_json(place, digests)
        study = study or _open_study(data, config, out, space)
        running = _Search(study, prepare(data, config, out / "cache"), config, out)
        running.go_on(trials, end)
        result = running.result()
    if result.best is None:
        _raise_for_nothing(result, running.causes)
    return result


def _require_single(config: RunConfig) -> None:
    if len(config.members) != 1:
        raise UsageError(f"one backbone is tuned at a time, and there are {len(config.members)}; name one")
    devices = config.trainer.devices
    if not (devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)) or config.trainer.num_nodes > 1:
        raise UsageError(f"a trial is trained on one device, and trainer.devices is {devices}; leave it out")


def _open_study(data: FolderData, config: RunConfig, out: Path, space: Space) -> Study:
    training = config.members[0].training(config.training)
    settings = config.model_dump(mode="json", exclude={"weights_dir", "trainer"})
    values = {name: list(p) if isinstance(p, tuple) else [p.low, p.high] for name, p in space.items()}
    question = {"data folder": str(data.path.resolve()), **settings, "space": list(space), "values": values}
    begin = own_values(config, space)
    better = data.task.higher_is_better
    return Study(out / STUDY, question, space, begin, better, training.epochs, training.seed)


class _Search:
    """A search that is under way, in its folder."""

    def __init__(self, study: Study, material: Material, config: RunConfig, out: Path) -> None:
        self.study = study
        self.material = material
        self.config = config
        self.out = out
        self.causes: list[Exception] = []

    def go_on(self, trials: int, end: float | None) -> None:
        """Trains trials until there are so many, or the time is over."""
        while (count := len(self.study.records())) < trials:
            left = None if end is None else end - time.monotonic()
            if left is not None and not self._worth_starting(left):
                log.info(f"time is over after {count} of {trials} trials")
                return
            self._run(self.study.ask(), trials, left)
            self._write()

    def _worth_starting(self, left: float) -> bool:
        taken = [t.seconds for t in self.study.records() if t.state == "done" and t.seconds is not None]
        return left > (WORTH_STARTING * float(np.median(taken)) if taken else 0)

    def _run(self, trial: OpenTrial, trials: int, left: float | None) -> None:
        """Trains a trial and tells the study how it ended."""
        started, title, metric = time.monotonic(), f"trial {trial.number}", self.material.metric
        chosen = ", ".join(f"{name} {_shown(value)}" for name, value in trial.values.items())
        log.info(f"{title} ({trial.number + 1} of {trials}): {chosen}")
        folder = self._folder(trial.number)
        try:
            config = with_values(self.config, trial.values)
            best = train_trial(self.material, config, folder.path, title, left, trial.report)["best"]
            if metric not in best:
                raise DensembleError(f"no epoch has a {metric}; the validation maps give none")
            trial.done(best[metric], **self._facts(folder, started))
            log.info(f"{title}: {metric} {best[metric]:.4f}")
        except Pruned:
            trial.pruned(self._best_score(folder), **self._facts(folder, started))
            log.info(f"{title}: pruned, it fell behind the others")
        except (DensembleError, OSError, RuntimeError, ValueError, MemoryError) as error:
            message = str(error) if isinstance(error, DensembleError) else f"{type(error).__name__}: {error}"
            trial.failed(message, **self._facts(folder, started))
            self.causes.append(error)
            log.error(f"{title}: FAILED: {message}")

    def _folder(self, number: int) -> MemberFolder:
        return MemberFolder(self.out / "trials" / f"{number:03d}")

    def _facts(self, folder: MemberFolder, started: float) -> dict[str, Any]:
        return {"epochs": len(_rows(folder)), "seconds": round(time.monotonic() - started, 1)}

    def _best_score(self, folder: MemberFolder) -> float | None:
        scores = [row[self.material.metric] for row in _rows(folder) if self.material.metric in row]
        return (max if self.material.task.higher_is_better else min)(scores, default=None)

    def _write(self) -> None:
        """After every trial, so that a search that is cut off leaves what it has found."""
        result = self.result()
        write_trials(result.path / "trials.csv", result.trials)
        best = result.best
        if best is not None:
            write_text(result.config, with_values(self.config, best.values).to_yaml())
        for trial in result.trials:
            folder = self._folder(trial.number)
            folder.last.unlink(missing_ok=True)  # hundreds of megabytes each, and nobody goes on from them
            if trial != best:
                folder.weights.unlink(missing_ok=True)

    def result(self) -> TuneResult:
        """What was found so far."""
        better = self.material.task.higher_is_better
        return TuneResult(self.out, self.material.metric, better, self.study.records(), self.study.importance())


def _rows(folder: MemberFolder) -> list[dict[str, float]]:
    return read_rows(folder.metrics) if folder.metrics.is_file() else []


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _raise_for_nothing(result: TuneResult, causes: Sequence[Exception]) -> None:
    """Raises where no trial was trained to its end."""
    if not result.trials:
        raise UsageError(f"no trial was begun in '{result.path}'; give more --time")
    reasons = "; ".join(dict.fromkeys(trial.error for trial in result.trials if trial.error))
    kind = type(causes[0]) if causes and isinstance(causes[0], DensembleError) else DensembleError
    raise kind(f"none of {len(result.trials)} trials was trained to its end: {reasons}")
