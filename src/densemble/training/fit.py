"""Train one dense model into its member folder; an interrupted training resumes from its last epoch."""

import logging
import math
import random
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException
from torch.utils.data import DataLoader, Dataset

from densemble.config import AugmentName, TrainerConfig
from densemble.data.decoded_cache import DecodedSplit
from densemble.data.transforms import AUGMENT
from densemble.errors import DivergedError, ResourceError, UsageError
from densemble.progress.phases import suspended
from densemble.training.averaging import AVERAGING
from densemble.training.callbacks import EpochRecord, LiveProgress, TimeLimit, read_rows
from densemble.training.checkpoints import CheckpointFiles, Start, find_start
from densemble.training.dataset import DecodedSamples, DeviceSamples, EpochSampler, batches
from densemble.training.divergence import Divergence, RollBack
from densemble.training.features import feature_batches
from densemble.training.interruption import Interruption
from densemble.training.loader_workers import usable_workers
from densemble.training.loggers import make_loggers
from densemble.training.module import MemberModule
from densemble.training.quiet import silence_lightning
from densemble.training.rate import find_learning_rate
from densemble.training.settings import FitSettings, MemberFit
from densemble.training.single_values import normalize_single_values
from densemble.training.snapshot_callback import Snapshots
from densemble.training.soft_targets import SoftSamples

log = logging.getLogger(__name__)
LARGEST_BATCH = {"cuda": 32, "cpu": 8}
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def bf16_is_fast() -> bool:
    """Return whether this machine computes bfloat16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Called before each member is built, so that each can be reproduced alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fit_member(fit: MemberFit, more_callbacks: tuple[Callback, ...] = ()) -> dict[str, Any]:
    """Train a model; resume from ``last.ckpt`` if the folder has one.

    Writes ``metrics.csv``, ``weights.safetensors`` (best epoch) and ``last.ckpt`` (last epoch) after every epoch, and
    the snapshots that the settings request. If a batch does not fit into memory, it is halved and the number of
    batches accumulated per step is doubled, until it fits.

    Args:
        fit: the training to run.
        more_callbacks: further Lightning callbacks.

    Returns:
        ``{"epochs": done, "best": row of metrics.csv, "batch_size", "accumulate", "learning_rate", "data_share",
        "skipped_batches", "rollbacks"}``.

    Raises:
        DivergedError: the loss became NaN or infinite, again and again; see :mod:`densemble.training.divergence`.
        ResourceError: out of memory even with single images, or the folder cannot be written.
        UsageError: trainer flags that Lightning rejects.
    """
    model, settings = fit.model, fit.settings
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    if settings.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    normalize_single_values(model)
    silence_lightning()
    device = training_device(settings.machine)
    start = find_start(fit.folder, fit.title)
    batch, accumulate = start.batch_size or first_batch(settings), start.accumulate or 1
    before = {key: value.detach().clone() for key, value in model.state_dict().items()}
    started = time.monotonic()
    while True:
        settings = settings.model_copy(update={"batch_size": batch, "seconds": _seconds_left(fit.settings, started)})
        try:
            rate, divergence = _fit_once(replace(fit, settings=settings), start, accumulate, more_callbacks, before)
            break
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if batch == 1:
                raise ResourceError(
                    f"{fit.title}: out of memory even with one image at a time; lower input_size, or set "
                    "gradient_checkpointing"
                ) from error
        batch, accumulate = -(-batch // 2), accumulate * 2
        model.load_state_dict(before)
        start = find_start(fit.folder, fit.title, within_epoch=False)  # positions within an epoch are whole batches
        if device == "cuda":
            torch.cuda.empty_cache()
        log.warning("%s: out of memory; continuing with %d x %d images per step", fit.title, accumulate, batch)
    used = {"batch_size": batch, "accumulate": accumulate, "learning_rate": rate}
    return _result(fit, divergence, used)


def _result(fit: MemberFit, divergence: Divergence, used: dict[str, Any]) -> dict[str, Any]:
    """Return the result of :func:`fit_member` from its files.

    Raises:
        DivergedError: no weights have a finite loss.
    """
    rows = read_rows(fit.folder.metrics)
    best_of, worst = (max, float("-inf")) if fit.task.higher_is_better else (min, float("inf"))
    best = best_of(rows, key=lambda row: _or(row.get(f"val_{fit.task.primary}"), worst))
    never = all(math.isnan(row["train_loss"]) for row in rows)
    if (divergence.skipped and never) or (divergence.rollbacks and not math.isfinite(best["val_loss"])):
        for file in fit.folder.checkpoints:  # a resumed training starts again
            file.unlink(missing_ok=True)
        what = "training batch had" if never else "epoch has weights with"
        raise DivergedError(f"{fit.title}: no {what} a finite loss; lower learning_rate")
    share = float(np.mean([row["data_share"] for row in rows]))
    return {
        "epochs": len(rows), "best": best, **used, "data_share": round(share, 4),
        "skipped_batches": divergence.skipped, "rollbacks": divergence.rollbacks,
    }  # fmt: skip


def _or(value: float | None, default: float) -> float:
    """Return a value, or the default if it is absent or NaN."""
    return default if value is None or math.isnan(value) else value


def _seconds_left(settings: FitSettings, started: float) -> float | None:
    """Return the time left after attempts that ran out of memory and after the range test; at least 1 s."""
    return None if settings.seconds is None else max(settings.seconds - (time.monotonic() - started), 1.0)


def first_batch(settings: FitSettings) -> int:
    """Return the batch size to try first."""
    size = settings.batch_size
    return LARGEST_BATCH[training_device(settings.machine)] if size == "auto" else size


def training_device(machine: TrainerConfig) -> str:
    """Return the device that members are trained on, ``cuda`` or ``cpu``."""
    return "cuda" if torch.cuda.is_available() and machine.accelerator in ("auto", "gpu", "cuda") else "cpu"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory; torch raises OutOfMemoryError on a GPU, RuntimeError on a CPU."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "out of memory" in text or "can't allocate memory" in text
    )


def _fit_once(
    fit: MemberFit, start: Start, accumulate: int, more_callbacks: tuple[Callback, ...], initial: dict[str, Tensor]
) -> tuple[float, Divergence]:
    """Train once with the given batch size; return the peak learning rate and the non-finite losses."""
    model, task, settings = fit.model, fit.task, fit.settings
    loss = task.loss if fit.soft is None else fit.soft.loss(task)
    train_batches, val_batches = _loaders(fit, start)
    rate, started = start.learning_rate or settings.learning_rate, time.monotonic()
    if rate == "auto":
        rate, _ = find_learning_rate(model, task, settings, train_batches, training_device(settings.machine), loss)
    settings = settings.model_copy(update={"seconds": _seconds_left(settings, started)})
    fit = replace(fit, settings=settings)
    deterministic = torch.are_deterministic_algorithms_enabled()
    kept = {"batch_size": first_batch(settings), "accumulate": accumulate, "learning_rate": rate}
    files = CheckpointFiles(fit.folder, within_epoch=start.batches > 0)
    callbacks = [*_callbacks(fit, more_callbacks, initial), Interruption(fit.folder, files, kept)]
    trainer = _trainer(fit, accumulate, callbacks, files)
    steps = settings.epochs * -(-len(train_batches) // (accumulate * trainer.world_size))
    module = MemberModule(model, task, settings, steps, rate, loss)
    model.train()
    resume = None if start.file is None else str(start.file)
    try:
        with nullcontext() if settings.machine.has_one_device else suspended():
            trainer.fit(module, train_batches, val_batches, ckpt_path=resume, weights_only=True if resume else None)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit(1); the caller needs the KeyboardInterrupt.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except ProcessException as error:
        raise _raised_in_process(error) from error
    finally:
        if settings.machine.deterministic:  # Lightning sets it for the whole process
            torch.use_deterministic_algorithms(deterministic)
    return rate, module.divergence


def _callbacks(fit: MemberFit, more_callbacks: tuple[Callback, ...], initial: dict[str, Tensor]) -> list[Callback]:
    """Return the callbacks in the order in which they run."""
    task, settings = fit.task, fit.settings
    # Those of the user run first, so that last.ckpt holds their state after the epoch.
    callbacks: list[Callback] = [
        *fit.callbacks, RollBack(fit.folder, fit.title, initial), EpochRecord(fit.folder), LiveProgress(fit.title),
        *more_callbacks,
    ]  # fmt: skip
    if settings.snapshots:
        callbacks.append(Snapshots(fit.folder, settings.snapshots))
    if settings.patience is not None:
        mode = "max" if task.higher_is_better else "min"
        # A check at the end of the epoch would run after EpochRecord, whose checkpoint stores the wait count.
        callbacks.append(
            EarlyStopping(
                f"val_{task.primary}", mode=mode, patience=settings.patience, strict=False,
                check_on_train_epoch_end=False,
            )
        )  # fmt: skip
    if settings.averaging in AVERAGING:
        callbacks.append(AVERAGING[settings.averaging]())
    if settings.seconds is not None:
        callbacks.append(TimeLimit(settings.seconds, len(fit.val)))
    return callbacks


def _raised_in_process(error: ProcessException) -> Exception:
    """Rebuild the error of a training process; only its text reaches this process."""
    last = str(error).strip().splitlines()[-1]
    error_type, _, message = last.partition(": ")
    return DivergedError(message) if error_type.endswith(DivergedError.__name__) else RuntimeError(last)


def _trainer(fit: MemberFit, accumulate: int, callbacks: list[Callback], files: CheckpointFiles) -> lightning.Trainer:
    settings, machine = fit.settings, fit.settings.machine
    loggers = make_loggers(machine.loggers, fit.folder.path.parent.parent / "logs", fit.title)
    try:
        return lightning.Trainer(
            max_epochs=settings.epochs,
            min_epochs=0,
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.num_nodes,
            strategy=_strategy(settings),
            deterministic=machine.deterministic,
            precision=PRECISIONS[settings.precision],
            accumulate_grad_batches=accumulate,
            use_distributed_sampler=False,  # EpochSampler splits the samples over the processes
            callbacks=callbacks,
            plugins=[files],
            logger=loggers or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            default_root_dir=str(fit.folder.path),
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}; check accelerator, devices or strategy") from error


def _strategy(settings: FitSettings) -> str:
    """Return Lightning's strategy; several devices of one machine get spawned processes that only train."""
    machine = settings.machine
    if machine.strategy != "auto" or machine.has_one_device or machine.num_nodes > 1:
        return machine.strategy
    # Otherwise, the processes would wait for the gradients of a frozen backbone.
    return "ddp_spawn_find_unused_parameters_true" if settings.freeze_epochs else "ddp_spawn"


def _loaders(fit: MemberFit, start: Start) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the batches of the training and the validation split."""
    settings, size = fit.settings, first_batch(fit.settings)
    count = len(fit.train) if fit.soft is None else len(fit.soft)
    order, in_order = EpochSampler(count, settings.seed, size), EpochSampler(len(fit.val), None)
    order.skipped = (start.epoch, start.batches * size)
    if settings.cache_features:
        return feature_batches(fit, fit.train, order, size), feature_batches(fit, fit.val, in_order, size)
    gpu = torch.cuda.is_available()
    workers = usable_workers(settings.machine.workers or 0, fit.train, size)
    return (
        batches(_training_samples(fit), order, size, workers, pinned=gpu),
        batches(augmented(fit, fit.val, "none"), in_order, size, workers, pinned=gpu),
    )


def _training_samples(fit: MemberFit) -> Dataset[Any]:
    """Return the augmented training samples, with soft targets if there are any."""
    samples = augmented(fit, fit.train, fit.settings.augment)
    return samples if fit.soft is None else SoftSamples(samples, fit.soft)


def augmented(fit: MemberFit, split: DecodedSplit, augment: AugmentName) -> DecodedSamples:
    """Return the samples of a split with an augmentation, which a GPU computes unless there are loader processes."""
    task, machine = fit.task, fit.settings.machine
    samples = DecodedSamples(split, fit.target_size, task.target_kind, task.fill, AUGMENT[augment], fit.settings.seed)
    device = training_device(machine)
    return DeviceSamples.of(samples, torch.device(device)) if device == "cuda" and not machine.workers else samples
