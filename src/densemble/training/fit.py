"""fit_member: trains one dense model into its member folder and can go on after a kill."""

import logging
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.multiprocessing.spawn import ProcessException
from torch.utils.data import DataLoader

from densemble.data.cache import DecodedSplit
from densemble.data.transforms import AUGMENT
from densemble.errors import DivergedError, ResourceError, UsageError
from densemble.nets.dense import DenseModel
from densemble.shapes import Size
from densemble.storage.runs import MemberFolder
from densemble.tasks import Task
from densemble.training.averaging import AVERAGING
from densemble.training.callbacks import EpochRecord, LiveProgress, TimeLimit, read_rows
from densemble.training.dataset import DecodedSamples, EpochSampler, batches
from densemble.training.features import feature_batches
from densemble.training.loggers import make_loggers
from densemble.training.module import MemberModule
from densemble.training.quiet import quieten
from densemble.training.rate import find_learning_rate
from densemble.training.settings import FitSettings, Machine
from densemble.training.single_values import normalize_single_values
from densemble.training.snapshots import Snapshots

LARGEST_BATCH = {"cuda": 32, "cpu": 8}
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def bf16_is_fast() -> bool:
    """Whether this machine computes bfloat16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch; done before a member is built, so that each is repeatable by itself."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fit_member(
    model: DenseModel,
    task: Task,
    train: DecodedSplit,
    val: DecodedSplit,
    target_size: Size,
    settings: FitSettings,
    folder: MemberFolder,
    title: str,
    cache: Path,
    watch: tuple[Callback, ...] = (),
) -> dict[str, Any]:
    """Trains ``model``; goes on from ``last.ckpt`` where the folder has one. Features that are kept go to ``cache``.

    Writes ``metrics.csv``, ``weights.safetensors`` (best epoch) and ``last.ckpt`` (last epoch) after every epoch, and
    the snapshots that the settings ask for.
    A batch that does not fit into memory is halved, and as many more are summed for a step, until it fits.

    Args:
        target_size: (h, w) of the maps that the model is trained on.
        watch: more callbacks of Lightning.

    Returns:
        ``{"epochs": done, "best": row of metrics.csv, "batch_size", "accumulate", "learning_rate", "data_share"}``.

    Raises:
        DivergedError: the loss became NaN or infinite.
        ResourceError: out of memory even with single pictures, or the folder cannot be written.
        UsageError: flags that Lightning refuses.
    """
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    if settings.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    normalize_single_values(model)
    quieten()
    device = training_device(settings.machine)
    batch, accumulate = settings.batch_size or LARGEST_BATCH[device], 1
    before = {key: value.detach().clone() for key, value in model.state_dict().items()}
    started = time.monotonic()
    while True:
        own = replace(settings, batch_size=batch, seconds=_left(settings, started))
        try:
            rate = _fit_once(model, task, train, val, target_size, own, accumulate, folder, title, cache, watch)
            break
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if batch == 1:
                raise ResourceError(
                    f"{title}: out of memory even with one picture at a time; lower input_size, or set "
                    "gradient_checkpointing"
                ) from error
        batch, accumulate = -(-batch // 2), accumulate * 2
        model.load_state_dict(before)
        if device == "cuda":
            torch.cuda.empty_cache()
        logging.getLogger("densemble").warning(
            "%s: out of memory; now %d x %d pictures a step", title, accumulate, batch
        )
    rows = read_rows(folder.metrics)
    best = (max if task.higher_is_better else min)(rows, key=lambda row: _score_of(row, task))
    share = float(np.mean([row["data_share"] for row in rows]))
    return {
        "epochs": len(rows), "best": best, "batch_size": batch, "accumulate": accumulate, "learning_rate": rate,
        "data_share": round(share, 4),
    }  # fmt: skip


def _left(settings: FitSettings, started: float) -> float | None:
    """What is left of the time: attempts that ran out of memory and the range test took of it."""
    return None if settings.seconds is None else max(settings.seconds - (time.monotonic() - started), 1.0)


def training_device(machine: Machine) -> str:
    """``cuda`` or ``cpu``: where a machine's members are trained."""
    return "cuda" if torch.cuda.is_available() and machine.accelerator in ("auto", "gpu", "cuda") else "cpu"


def _score_of(row: dict[str, float], task: Task) -> float:
    worst = float("-inf") if task.higher_is_better else float("inf")
    return row.get(f"val_{task.primary}", worst)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: torch raises a type of its own on GPUs, and a RuntimeError with this text on CPUs."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "out of memory" in words or "can't allocate memory" in words
    )


def _fit_once(
    model: DenseModel,
    task: Task,
    train: DecodedSplit,
    val: DecodedSplit,
    target_size: Size,
    settings: FitSettings,
    accumulate: int,
    folder: MemberFolder,
    title: str,
    cache: Path,
    watch: tuple[Callback, ...],
) -> float:
    """One attempt; gives the peak learning rate that was used."""
    feed, check = _feeds(model, task, train, val, target_size, settings, cache)
    rate, started = settings.learning_rate, time.monotonic()
    if rate is None:
        rate, _ = find_learning_rate(model, task, settings, feed, training_device(settings.machine))
    settings = replace(settings, seconds=_left(settings, started))
    callbacks = _callbacks(task, settings, folder, title, watch, len(val))
    deterministic = torch.are_deterministic_algorithms_enabled()
    trainer = _trainer(settings, accumulate, callbacks, folder, title)
    steps = settings.epochs * -(-len(feed) // (accumulate * trainer.world_size))
    module = MemberModule(model, task, settings, steps, rate)
    model.train()
    resume = str(folder.last) if folder.last.is_file() else None
    try:
        trainer.fit(module, feed, check, ckpt_path=resume, weights_only=True if resume else None)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit(1); the caller has to learn what it was.
        if stop.code == 1:
            raise KeyboardInterrupt from None
        raise
    except ProcessException as error:
        raise _raised_in_process(error) from error
    finally:
        if settings.machine.deterministic:  # Lightning sets it for the whole program
            torch.use_deterministic_algorithms(deterministic)
    return rate


def _callbacks(
    task: Task, settings: FitSettings, folder: MemberFolder, title: str, watch: tuple[Callback, ...], held_out: int
) -> list[Callback]:
    """In the order in which they are called."""
    callbacks: list[Callback] = [EpochRecord(folder), LiveProgress(title), *watch]
    if settings.snapshots:
        callbacks.append(Snapshots(folder, settings.snapshots))
    if settings.patience is not None:
        mode = "max" if task.higher_is_better else "min"
        # Checked at the end of the epoch it would come after the record, which writes down how long it has waited.
        callbacks.append(
            EarlyStopping(
                f"val_{task.primary}", mode=mode, patience=settings.patience, strict=False,
                check_on_train_epoch_end=False,
            )
        )  # fmt: skip
    if settings.averaging in AVERAGING:
        callbacks.append(AVERAGING[settings.averaging]())
    if settings.seconds is not None:
        callbacks.append(TimeLimit(settings.seconds, held_out))
    return callbacks


def _raised_in_process(error: ProcessException) -> Exception:
    """The error of one of several processes, of which only the text comes back."""
    last = str(error).strip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    return DivergedError(message) if kind.endswith(DivergedError.__name__) else RuntimeError(last)


def _trainer(
    settings: FitSettings, accumulate: int, callbacks: list[Callback], folder: MemberFolder, title: str
) -> lightning.Trainer:
    machine = settings.machine
    loggers = make_loggers(machine.loggers, folder.path.parent.parent / "logs", title)
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
            use_distributed_sampler=False,  # EpochSampler deals the samples out itself
            callbacks=callbacks,
            logger=loggers or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            default_root_dir=str(folder.path),
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}; mend accelerator, devices or strategy") from error


def _strategy(settings: FitSettings) -> str:
    """Several devices of one machine become processes that only train: the rest of the program runs once."""
    machine = settings.machine
    single = machine.devices in (1, "1") or (isinstance(machine.devices, list) and len(machine.devices) == 1)
    if machine.strategy != "auto" or single or machine.num_nodes > 1:
        return machine.strategy
    # Without it the processes would wait for the gradients of a backbone that does not learn.
    return "ddp_spawn_find_unused_parameters_true" if settings.freeze_epochs else "ddp_spawn"


def _feeds(
    model: DenseModel,
    task: Task,
    train: DecodedSplit,
    val: DecodedSplit,
    target_size: Size,
    settings: FitSettings,
    cache: Path,
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    assert settings.batch_size is not None
    size, seed, kind, fill = settings.batch_size, settings.seed, task.target_kind, task.fill
    if settings.cache_features:
        bf16 = settings.precision == "bf16"
        return (
            feature_batches(model, train, cache, target_size, kind, size, bf16, seed, shuffled=True),
            feature_batches(model, val, cache, target_size, kind, size, bf16),
        )
    gpu = torch.cuda.is_available()
    workers = (4 if gpu else 0) if settings.machine.workers is None else settings.machine.workers
    samples = training_samples(task, train, target_size, settings)
    held_out = DecodedSamples(val, target_size, kind, fill, AUGMENT["none"], seed)
    return (
        batches(samples, EpochSampler(len(train), seed, size), size, workers, pinned=gpu),
        batches(held_out, EpochSampler(len(val), None), size, workers, pinned=gpu),
    )


def training_samples(task: Task, train: DecodedSplit, target_size: Size, settings: FitSettings) -> DecodedSamples:
    """The training split, augmented as the settings say."""
    how = AUGMENT[settings.augment]
    return DecodedSamples(train, target_size, task.target_kind, task.fill, how, settings.seed)
