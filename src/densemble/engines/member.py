"""Build and train one member of a run, predict its validation images, and record the result."""

import logging
import shlex
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from densemble.config import RunConfig
from densemble.data.decoded_cache import decode_split
from densemble.data.folder import FolderData
from densemble.engines.plan import build_model, fit_settings, sizes
from densemble.errors import DensembleError, PartialError, Terminated, error_like, error_text
from densemble.evaluation.scores import Scores, predict_split
from densemble.nets.dense import DenseModel
from densemble.nets.local_weights import read_state
from densemble.progress.phases import show_activity
from densemble.report.curves import draw_curves
from densemble.shapes import Array, Size
from densemble.storage.arrays import write_npy
from densemble.storage.runs import MemberFolder, RunFolder
from densemble.storage.writing import require_writable, write_json, write_text
from densemble.tasks import Task
from densemble.training.callbacks import read_rows
from densemble.training.fit import fit_member, is_out_of_memory, seed_everything, training_device
from densemble.training.settings import MemberFit
from densemble.training.soft_targets import SoftTargets
from densemble.training.user_callbacks import NO_CALLBACKS, UserCallbacks

log = logging.getLogger(__name__)
FAILURES = (Exception, SystemExit)
"""Errors that end the training of one member but not that of the others, except :class:`Terminated`."""
CRASHED = "crashed"
"""Key in the record of a member whose process ended by a signal, an exit or a limit."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of the training of one member.

    Attributes:
        name: name of the member.
        state: ``done``, ``kept`` (finished by an earlier command), ``left out`` (for lack of time), ``failed``.
        error: reason why it failed or was left out.
        cause: exception of a failed member.
        epochs: epochs that this command trained; one that was cut short counts as a part.
    """

    name: str
    state: str
    error: str | None = None
    cause: BaseException | None = None
    epochs: float = 0.0


@dataclass(frozen=True)
class Training:
    """Inputs that all members of a run share.

    Attributes:
        data, task, config, run: data, its task with the run's loss, configuration and folder.
        soft: predictions of an ensemble to train on; ``None`` trains on the targets alone.
        callbacks: callbacks of the user; each member starts with their state of now.
    """

    data: FolderData
    task: Task
    config: RunConfig
    run: RunFolder
    soft: SoftTargets | None = None
    callbacks: UserCallbacks = NO_CALLBACKS

    @property
    def cache(self) -> Path:
        """Folder of decoded images and cached features."""
        folder = self.config.trainer.cache_dir
        return Path(folder).expanduser() if folder else self.run.cache

    def name(self, index: int) -> str:
        """Return the name of a member."""
        return self.config.member_names()[index]

    def folder(self, index: int) -> MemberFolder:
        """Return the folder of a member."""
        return self.run.member(index, self.name(index))


def build_member(training: Training, index: int) -> MemberFit:
    """Build a member from its seed and open its decoded images.

    Raises:
        DensembleError: weights that cannot be read, a cut that does not exist, ...
    """
    started = time.monotonic()
    config, task, member = training.config, training.task, training.config.members[index]
    settings = fit_settings(config, member, None)
    seed_everything(settings.seed)
    image_size, target_size, _ = sizes(config, member)
    train, val = (decode_split(training.data, split, image_size, training.cache) for split in ("train", "val"))
    model, name = build_model(config, member, task, train.images.shape[1]), training.name(index)
    cut = model.cut
    log.info(
        f"{name}: cut at {cut.node} ({cut.channels} x {cut.height}x{cut.width}), {model.loaded}"
        + (f"; {model.assumed}" if model.assumed else "")
    )
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    folder, seconds = training.folder(index), time.monotonic() - started
    return MemberFit(
        model, task, settings, train, val, target_size, folder, name, training.cache, seconds, training.soft
    )


def train_member(training: Training, index: int, seconds: float | None = None, ending: float = 0.0) -> Outcome:
    """Train a member into its folder, in this process; a failure is logged and recorded there.

    Args:
        training: the run.
        index: index of the member.
        seconds: time limit of the member; ``None`` trains all epochs.
        ending: part of ``seconds`` reserved for predicting the validation images.
    """
    started = time.monotonic()
    name, folder, member = training.name(index), training.folder(index), training.config.members[index]
    before = finished_epochs(folder)
    record: dict[str, Any] = {"name": name, "config": member.model_dump(mode="json"), "state": "running"}
    try:
        require_writable(folder.path)
        write_json(folder.record, record)
        built = build_member(training, index)
        if seconds is not None:
            limited = built.settings.model_copy(update={"seconds": max(seconds - ending, 1.0)})
            built = replace(built, settings=limited)
        record |= _train(training, built, sizes(training.config, member).stored)
        record |= {"state": "done", "seconds": round(time.monotonic() - started, 1)}
        write_json(folder.record, record)
    except Terminated:
        raise
    except FAILURES as error:
        return record_failure(training, index, error, record)
    score = record["val"].get(training.task.primary)
    text = "" if score is None else f", val {training.task.primary} {score:.4f}"
    log.info(f"{name}: done in {record['seconds']:.0f} s{text}")
    seconds_of_epochs = [row["seconds"] for row in read_rows(folder.metrics)[before:]]
    return Outcome(name, "done", epochs=count_epochs(seconds_of_epochs, built.settings.epochs - before))


def finished_epochs(folder: MemberFolder) -> int:
    """Return the number of epochs after which a training of the member continues."""
    resumes = any(file.is_file() for file in folder.checkpoints)
    return len(read_rows(folder.metrics)) if resumes and folder.metrics.is_file() else 0


def count_epochs(seconds: Sequence[float], requested: int) -> float:
    """Return the number of trained epochs from their durations; the last one may have been cut short.

    Args:
        seconds: duration of each epoch.
        requested: number of epochs if the time is long enough.

    Returns:
        0 if the only epoch may have been cut short.
    """
    if len(seconds) >= requested or not seconds:
        return float(len(seconds))
    complete = seconds[:-1]
    if not complete:
        return 0.0
    return len(complete) + min(seconds[-1] * len(complete) / max(sum(complete), 1e-9), 1.0)


def _train(training: Training, fit: MemberFit, map_size: Size) -> dict[str, Any]:
    """Train, write weights, predictions and curves, and return the entries of the member's record."""
    folder, model = fit.folder, fit.model
    show_activity()
    fitted = fit_member(replace(fit, callbacks=training.callbacks.for_member()))
    show_activity()
    model.load_state_dict(read_state(folder.weights))
    maps, scores = _predict(training, model.float().eval(), training_device(fit.settings.machine), map_size)
    write_npy(folder.predictions, maps)
    show_activity()
    draw_curves(read_rows(folder.metrics), fit.title, folder.plots / "curves.png")
    return {
        "spec": model.spec.as_dict(),
        "loaded": model.loaded,
        "parameters": sum(p.numel() for p in model.parameters()),
        **{key: value for key, value in fitted.items() if key != "best"},
        "best_epoch": int(fitted["best"]["epoch"]),
        "val": scores,
    }


def _predict(training: Training, model: DenseModel, device: str, map_size: Size) -> tuple[Array, Scores]:
    """Predict the validation images on the training device, or on the CPU if they do not fit into its memory."""
    try:
        return predict_split(model.to(device), training.task, training.data, "val", map_size)
    except RuntimeError as error:
        if device == "cpu" or not is_out_of_memory(error):
            raise
        log.warning("validation images at their full size do not fit into GPU memory: predicted on the CPU")
        return predict_split(model.cpu(), training.task, training.data, "val", map_size)
    finally:
        model.cpu()


def record_failure(
    training: Training, index: int, error: BaseException, record: dict[str, Any] | None = None, crash: str | None = None
) -> Outcome:
    """Log and record why a member failed; an unexpected error leaves its traceback in ``error.txt``.

    Args:
        training: the run.
        index: index of the member.
        error: reason.
        record: entries of the record of the member.
        crash: traceback of a process that crashed, which may be empty; ``None``: it did not crash.
    """
    name, folder = training.name(index), training.folder(index)
    message = error_text(error)
    log.error(f"{name}: FAILED: {message}")
    if record is None:
        record = {"name": name, "config": training.config.members[index].model_dump(mode="json")}
    try:
        require_writable(folder.path)
        crashed = {} if crash is None else {CRASHED: True}
        write_json(folder.record, {**record, "state": "failed", "error": message, **crashed})
        details = "".join(traceback.format_exception(error)) if not isinstance(error, DensembleError) else crash
        if details:
            write_text(folder.path / "error.txt", details)
            log.error(f"{name}: details in {folder.path / 'error.txt'}")
    except DensembleError as second:
        log.error(f"{name}: {second}")
    return Outcome(name, "failed", message, error)


def report_left_out(outcomes: Sequence[Outcome], data: Path, out: Path, functions: Sequence[str]) -> None:
    """Warn if members were not trained for lack of time, with the command that trains them."""
    names = [outcome.name for outcome in outcomes if outcome.state == "left out"]
    if not names:
        return
    options = [word for function in functions for word in ("--function", function)]
    command = shlex.join(["densemble", "train", str(data), "-o", str(out), "--resume", *options])
    were, them = ("was", "it") if len(names) == 1 else ("were", "them")
    log.warning(
        f"{len(names)} of {len(outcomes)} members {were} not trained for lack of time: {', '.join(names)}; "
        f"train {them} with `{command}`, in Python with resume=True"
    )


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise an error if members failed.

    Raises:
        PartialError: some members failed.
        DensembleError: all members failed; the error has the type of the first failure.
    """
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not failed:
        return
    reasons = "; ".join(f"{outcome.name}: {outcome.error}" for outcome in failed)
    if len(failed) < len(outcomes):
        raise PartialError(f"{len(failed)} of {len(outcomes)} members failed, the others are done: {reasons}")
    raise error_like(failed[0].cause, f"every member failed: {reasons}") from failed[0].cause
