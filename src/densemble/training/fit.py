"""fit_member: trains one dense model into its member folder and can go on after a kill."""

import logging
import random
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from densemble.data.cache import DecodedSplit
from densemble.data.transforms import AUGMENT
from densemble.errors import ResourceError
from densemble.nets.dense import DenseModel
from densemble.storage.runs import MemberFolder
from densemble.tasks import SegmentationTask, Task
from densemble.training.callbacks import EpochRecord, LiveProgress, TimeLimit
from densemble.training.dataset import batches
from densemble.training.features import feature_batches
from densemble.training.module import FitSettings, MemberModule


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
    settings: FitSettings,
    folder: MemberFolder,
    title: str,
    cache: Path,
) -> dict[str, Any]:
    """Trains ``model``; goes on from ``last.ckpt`` where the folder has one. Features that are kept go to ``cache``.

    Writes ``metrics.csv``, ``weights.safetensors`` (best epoch) and ``last.ckpt`` (last epoch) after every epoch.

    Returns:
        ``{"epochs": done, "best": row of metrics.csv}``.

    Raises:
        DivergedError: the loss became NaN or infinite.
        ResourceError: out of memory, or the folder cannot be written.
    """
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    if settings.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    feed, check = _feeds(model, task, train, val, settings, cache)
    module = MemberModule(model, task, settings, steps=settings.epochs * len(feed))
    record = EpochRecord(folder)
    callbacks = [record, LiveProgress(title)]
    if settings.seconds is not None:
        callbacks.append(TimeLimit(settings.seconds))
    _quieten()
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if settings.bf16 else "32-true",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        default_root_dir=str(folder.path),
    )
    model.train()
    resume = str(folder.last) if folder.last.is_file() else None
    try:
        trainer.fit(module, feed, check, ckpt_path=resume, weights_only=True if resume else None)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(
            f"{title}: out of memory; lower batch_size ({settings.batch_size}) or input_size"
        ) from error
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit(1); the caller has to learn what it was.
        if stop.code == 1:
            raise KeyboardInterrupt from None
        raise
    assert record.best is not None
    return {"epochs": len(record.rows), "best": record.best}


def _feeds(
    model: DenseModel, task: Task, train: DecodedSplit, val: DecodedSplit, settings: FitSettings, cache: Path
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    size, seed = settings.batch_size, settings.seed
    if settings.cache_features:
        return (
            feature_batches(model, train, cache, size, settings.bf16, seed, shuffled=True),
            feature_batches(model, val, cache, size, settings.bf16),
        )
    fill = float(task.ignore_index) if isinstance(task, SegmentationTask) else 0.0
    return (
        batches(train, AUGMENT[settings.augment], size, fill, seed, shuffled=True),
        batches(val, AUGMENT["none"], size, fill),
    )


def _quieten() -> None:
    """Lightning's advertisements and its advice on workers, which a memory-mapped cache has no use for."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
