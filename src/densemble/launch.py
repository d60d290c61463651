"""launch: from a data folder and settings to a run with an ensemble in it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemble.config import RunConfig, make_config
from densemble.data.folder import FolderData
from densemble.data.heat_scale import told
from densemble.engines.budget import Budget
from densemble.engines.leftovers import remove_leftovers
from densemble.errors import ConfigError, DensembleError, PartialError, UsageError
from densemble.messages import shown
from densemble.presets import preset_settings, under
from densemble.run import Run
from densemble.shapes import Size
from densemble.storage.artifact import require_function, save
from densemble.tasks import TASKS

log = logging.getLogger(__name__)
_SAMPLED = 20


def configured(values: Mapping[str, Any], data: FolderData, source: str = "the settings") -> RunConfig:
    """The checked configuration of a mapping of a run.yaml; its preset and its task say what it leaves open.

    Raises:
        ConfigError: unknown or wrong settings, or densities without a fixed size.
    """
    name, task = values.get("preset"), TASKS[data.task_name]
    preset = {} if name is None else preset_settings(str(name), task, typical_size(data))
    config = make_config(under(values, preset), source)
    if "out_size" not in values:
        config = config.model_copy(update={"out_size": task.default_out_size(config.input_size)})
    if data.kind == "density" and config.out_size is None:
        raise ConfigError(
            f"{source}: out_size must be fixed for densities, for their sum is a count; set it to 60x80 or so"
        )
    return config


def typical_size(data: FolderData) -> Size:
    """Median height and width of some training pictures."""
    shapes = [data.read_image(sample).shape[:2] for sample in data.train[:: max(1, len(data.train) // _SAMPLED)]]
    height, width = np.median(np.array(shapes), axis=0)
    return int(height), int(width)


def open_data(
    path: str | Path, values: Mapping[str, Any], source: str = "the settings"
) -> tuple[FolderData, RunConfig]:
    """The data folder and the checked configuration of a mapping of a run.yaml.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: pictures or maps that cannot be used.
    """
    config = make_config(dict(values), source)
    data = FolderData(path, config.task, **config.data)
    decided = {**values, "data": {**(values.get("data") or {}), **data.settle()}}
    return data, configured(decided, data, source)


def open_given(
    data: FolderData | str | Path, task: str | None, settings: Mapping[str, Any]
) -> tuple[FolderData, RunConfig]:
    """As :func:`open_data`, of a FolderData, or of a path together with a task.

    Raises:
        UsageError: no task, or another than the FolderData's.
    """
    if not isinstance(data, FolderData):
        if task is None:
            raise UsageError("a path of data needs task=; for instance task='saliency'")
        return open_data(data, {**settings, "task": task})
    if task not in (None, data.task_name):
        raise UsageError(f"task='{task}' contradicts the FolderData's '{data.task_name}'; leave it out")
    values = {**settings, "task": data.task_name, "data": {**data.options, **data.settle()}}
    return data, configured(values, data)


def require_functions(config: RunConfig, functions: Sequence[str], source: str) -> None:
    """Checks the members of a configuration that a file names, before any of them is built.

    Raises:
        ArtifactError: one is code that is not in ``functions``; see :func:`require_function`.
    """
    for name, member in zip(config.member_names(), config.members, strict=True):
        require_function(source, name, member.backbone, functions)


def run_members(
    data: FolderData, config: RunConfig, out: Path, resume: bool = False, budget: Budget | None = None
) -> Run:
    """Trains the members and leaves ``ensemble.safetensors`` in the run: greedy selection, calibrated, scored.

    What only an unfinished training needs is removed at the end, see :func:`remove_leftovers`.

    Raises:
        PartialError: some members failed; the ensemble of the others is there.
        DensembleError: every member failed: the first one's reason.
    """
    from densemble.engines.local import train_members

    if data.reading.options["heat_max"]:
        log.info(f"maps: {told(data.reading.options['heat_max'])}")
    outcomes = train_members(data, config, out, resume, budget)
    run = Run(out, data.path, [member.backbone for member in config.members])
    if any(outcome.state in ("done", "kept") for outcome in outcomes):
        ensemble = run.assemble()
        save(ensemble, run.folder.artifact)
        scores = ", ".join(f"{k} {v:.4f}" for k, v in ensemble.metrics["val"].items() if isinstance(v, float))
        log.info(f"ensemble of {len(ensemble.members)}: val, which it was fitted on: {scores}; {run.folder.artifact}")
        for line in run.cross_fitted():
            log.info(line)
        log.info(f"selection and scores explained: {run.folder.report}")
        warn_of_baselines(run, ensemble.metrics["val"])
        remove_leftovers(run.folder, config)
    if budget is not None and budget.seconds is not None:
        log.info(f"took {budget.used:.0f} s of {budget.seconds:.0f} s")
    raise_failures(outcomes)
    return run


def warn_of_baselines(run: Run, scores: Mapping[str, Any]) -> None:
    """Says so where a prediction that needs no training scores as well as the ensemble."""
    name, sign = run.task.primary, 1.0 if run.task.higher_is_better else -1.0
    for baseline, own in run.baselines().items():
        if own.get(name) is not None and scores.get(name) is not None and sign * scores[name] <= sign * own[name]:
            log.warning(
                f"warning: {name} {scores[name]:.4f} is no better than the baseline '{baseline}' ({own[name]:.4f}), "
                "which needs no training: train longer, start from pretrained weights, or look at the data"
            )


def train(
    data: FolderData | str | Path,
    members: Sequence[str | Mapping[str, Any]] | None = None,
    out: str | Path = "runs/run",
    task: str | None = None,
    time: str | float | None = None,
    resume: bool = False,
    report: Callable[[str], None] | None = print,
    retrain: bool = False,
    **settings: Any,
) -> Run:
    """Trains members one by one, assembles them, and returns the run.

    Args:
        data: a :class:`FolderData`, or the path of one together with ``task``. How pictures are split and maps are read
            is said to the FolderData.
        members: backbone names, or mappings with the keys of a member in run.yaml; default the seven of the story.
        out: run folder.
        task: row of ``TASKS``, where ``data`` is a path.
        time: limit for everything from this call to the saved ensemble: seconds, or ``"30m"``. Members that it is not
            enough for are left out.
        resume: go on with a run that was cut off.
        report: called with each line that the loggers ``densemble.*`` give; ``None``: only their own handlers.
        retrain: like ``resume``; where the data has changed, all members are trained again instead of refusing.
        settings: keys of run.yaml, for instance ``preset="fast"``, ``input_size=(240, 320)`` or
            ``training={"epochs": 5}``.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: pictures or maps that cannot be used.
        PartialError: some members failed; the others are done, and ``Run(out)`` opens them.
        DensembleError: every member failed: the first one's reason.
    """
    budget, values = Budget(parse_time(time)), dict(settings)
    if members is not None:
        values["members"] = list(members)
    folder, config = open_given(data, task, values)
    with shown(report):
        if retrain:
            from densemble.engines.local import forget_changed

            forget_changed(folder, config, Path(out))
        return run_members(folder, config, Path(out), resume or retrain, budget)


def raise_failures(outcomes: Sequence[Any]) -> None:
    """Raises for members that failed.

    Raises:
        PartialError: some did.
        DensembleError: all did: the first one's own error.
    """
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not failed:
        return
    reasons = "; ".join(f"{outcome.name}: {outcome.error}" for outcome in failed)
    if len(failed) < len(outcomes):
        raise PartialError(f"{len(failed)} of {len(outcomes)} members failed, the others are done: {reasons}")
    first = failed[0].cause
    kind = type(first) if isinstance(first, DensembleError) else DensembleError
    raise kind(f"every member failed: {reasons}") from first


def parse_time(text: str | float | None) -> float | None:
    """``"30m"``, ``"90s"``, ``"2h"`` or a number of seconds -> seconds.

    Raises:
        UsageError: none of these.
    """
    if text is None or isinstance(text, int | float):
        return text
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text and text[-1] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"time '{text}' is not a duration; write it as 30m, 90s or 2h")
    return seconds
