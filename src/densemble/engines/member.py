"""One member of a run: built, trained, its validation images predicted, recorded."""

import logging
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from densemble.config import RunConfig
from densemble.data.decoded_cache import decode_split
from densemble.data.folder import FolderData
from densemble.engines.plan import build_model, fit_settings, sizes
from densemble.errors import DensembleError
from densemble.evaluation.scores import Scores, predict_split
from densemble.nets.dense import DenseModel
from densemble.nets.local_weights import read_state
from densemble.report.curves import draw_curves
from densemble.shapes import Array, Size
from densemble.storage.arrays import write_npy
from densemble.storage.runs import MemberFolder, RunFolder, require_writable, write_json, write_text
from densemble.tasks import Task
from densemble.training.callbacks import read_rows
from densemble.training.fit import fit_member, is_out_of_memory, seed_everything, training_device
from densemble.training.module import scalars
from densemble.training.settings import MemberFit

log = logging.getLogger(__name__)
FAILURES = (DensembleError, OSError, RuntimeError, ValueError, MemoryError)
"""What ends one member and leaves the others as they are."""


@dataclass(frozen=True)
class Outcome:
    """How one member ended.

    Attributes:
        name: of the member.
        state: ``done``, ``kept`` (finished by an earlier command), ``left out`` (the time was not enough), ``failed``.
        error: why it failed or was left out.
        cause: the exception of a failed member.
    """

    name: str
    state: str
    error: str | None = None
    cause: BaseException | None = None


@dataclass(frozen=True)
class Training:
    """What all members of a run share."""

    data: FolderData
    task: Task
    config: RunConfig
    run: RunFolder

    @property
    def cache(self) -> Path:
        """Folder of decoded images and of features."""
        given = self.config.trainer.cache_dir
        return Path(given).expanduser() if given else self.run.cache

    def name(self, number: int) -> str:
        """Name of a member."""
        return self.config.member_names()[number]

    def folder(self, number: int) -> MemberFolder:
        """Folder of a member."""
        return self.run.member(number, self.name(number))


def build_member(training: Training, number: int) -> MemberFit:
    """Builds a member from its seed and opens its decoded images.

    Raises:
        DensembleError: weights that cannot be read, a cut that does not exist, ...
    """
    started = time.monotonic()
    config, task, member = training.config, training.task, training.config.members[number]
    settings = fit_settings(config, member, None)
    seed_everything(settings.seed)
    size, target_size, _ = sizes(config, member)
    train, val = (decode_split(training.data, split, size, training.cache) for split in ("train", "val"))
    model, name = build_model(config, member, task, train.images.shape[1]), training.name(number)
    cut = model.cut
    log.info(
        f"{name}: cut at {cut.node} ({cut.channels} x {cut.height}x{cut.width}), {model.loaded}"
        + (f"; {model.assumed}" if model.assumed else "")
    )
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    folder, taken = training.folder(number), time.monotonic() - started
    return MemberFit(model, task, settings, train, val, target_size, folder, name, training.cache, taken)


def train_member(
    training: Training, number: int, built: MemberFit | None = None, seconds: float | None = None, ending: float = 0.0
) -> Outcome:
    """Trains a member into its folder; what fails is recorded there and logged.

    Args:
        training, number: which member.
        built: what :func:`build_member` gave; ``None``: it is built now.
        seconds: that the member may take; ``None``: until its epochs are done.
        ending: seconds of these that predicting the validation images takes.
    """
    started = time.monotonic()
    name, folder, member = training.name(number), training.folder(number), training.config.members[number]
    record: dict[str, Any] = {"name": name, "config": member.model_dump(mode="json"), "state": "running"}
    try:
        require_writable(folder.path)
        write_json(folder.record, record)
        if built is None:
            built = build_member(training, number)
        else:
            started -= built.build_seconds
            seed_everything(built.settings.seed)
        if seconds is not None:
            limited = built.settings.model_copy(update={"seconds": max(seconds - ending, 1.0)})
            built = replace(built, settings=limited)
        record |= _train(training, built, sizes(training.config, member)[2])
        record |= {"state": "done", "seconds": round(time.monotonic() - started, 1)}
        write_json(folder.record, record)
    except FAILURES as error:
        return record_failure(training, number, error, record)
    shown = ", ".join(f"{key} {value:.4f}" for key, value in scalars(record["val"]).items())
    log.info(f"{name}: done in {record['seconds']:.0f} s, val {shown}")
    return Outcome(name, "done")


def _train(training: Training, fit: MemberFit, map_size: Size) -> dict[str, Any]:
    """Writes weights, predictions and curves; returns the entries of the member's record."""
    folder, model = fit.folder, fit.model
    fitted = fit_member(fit)
    model.load_state_dict(read_state(folder.weights))
    maps, scores = _predict(training, model.float().eval(), training_device(fit.settings.machine), map_size)
    write_npy(folder.predictions, maps)
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
    """Predicts the validation images where the member was trained, or on the CPU where they do not fit into memory."""
    try:
        return predict_split(model.to(device), training.task, training.data, "val", map_size)
    except RuntimeError as error:
        if device == "cpu" or not is_out_of_memory(error):
            raise
        log.warning("validation images at their own size do not fit into GPU memory: predicted on the CPU")
        return predict_split(model.cpu(), training.task, training.data, "val", map_size)
    finally:
        model.cpu()


def record_failure(training: Training, number: int, error: Exception, record: dict[str, Any] | None = None) -> Outcome:
    """Logs and records why a member failed; an unexpected error leaves its traceback in ``error.txt``."""
    name, folder = training.name(number), training.folder(number)
    message = str(error) if isinstance(error, DensembleError) else f"{type(error).__name__}: {error}"
    log.error(f"{name}: FAILED: {message}")
    if record is None:
        record = {"name": name, "config": training.config.members[number].model_dump(mode="json")}
    try:
        require_writable(folder.path)
        write_json(folder.record, {**record, "state": "failed", "error": message})
        if not isinstance(error, DensembleError):
            write_text(folder.path / "error.txt", "".join(traceback.format_exception(error)))
            log.error(f"{name}: details in {folder.path / 'error.txt'}")
    except DensembleError as second:
        log.error(f"{name}: {second}")
    return Outcome(name, "failed", message, error)
