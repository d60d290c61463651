"""Checkpoints of a member: ``last.ckpt`` and the one before it, checked for damage when a training resumes."""

import logging
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from densemble.storage.runs import MemberFolder
from densemble.storage.writing import atomic_path

log = logging.getLogger(__name__)
KEPT_IN_MEMORY = "kept in memory"
"""Storage option of a checkpoint that is not written; ``CheckpointFiles.kept`` holds it."""
REQUIRED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")
OWN = "densemble"
"""Key of the values in a checkpoint that are not Lightning's."""


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Attributes:
        file: checkpoint to resume from; ``None``: the initial weights.
        epoch: number of finished epochs.
        batches: number of finished batches of the epoch that follows.
        batch_size, accumulate, learning_rate: values of the interrupted training; ``None`` if they are unknown.
    """

    file: Path | None = None
    epoch: int = 0
    batches: int = 0
    batch_size: int | None = None
    accumulate: int | None = None
    learning_rate: float | None = None


class CheckpointFiles(TorchCheckpointIO):
    """Lightning plugin that writes ``last.ckpt`` atomically and keeps the checkpoint before it.

    Lightning's plugin stages files in $TMPDIR, which may be on another file system; a rename from there is not atomic.

    Args:
        folder: member folder.
        within_epoch: whether ``last.ckpt`` is a checkpoint within an epoch, from which the training continues.
    """

    def __init__(self, folder: MemberFolder, within_epoch: bool = False) -> None:
        self.folder = folder
        self.kept: dict[str, Any] | None = None
        self._within_epoch = within_epoch

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if storage_options == KEPT_IN_MEMORY:
            self.kept = checkpoint
            return
        if Path(path) != self.folder.last:  # weights that the first of several processes returns
            super().save_checkpoint(checkpoint, path)
            return
        within_epoch = position(checkpoint)[1] > 0
        with atomic_path(self.folder.last) as temporary:
            torch.save(checkpoint, temporary)
            # A checkpoint within an epoch replaces one within the same epoch: the end of the last epoch is kept, from
            # which a training that diverges continues.
            if self.folder.last.is_file() and not (within_epoch and self._within_epoch):
                self.folder.last.replace(self.folder.previous)
        self._within_epoch = within_epoch

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if Path(path) in self.folder.checkpoints:
            return read_checkpoint(Path(path))
        checkpoint: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only)
        return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, without running code from it.

    Raises:
        ValueError: the file is absent or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        missing = [key for key in REQUIRED if key not in checkpoint]
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}")
        position(checkpoint)
    except Exception as error:  # readers of damaged files raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from error
    assert isinstance(checkpoint, dict)
    return checkpoint


def position(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Return the number of finished epochs, and of finished batches of the next epoch."""
    loops = checkpoint["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    is_within_epoch = epochs["started"] > epochs["processed"]
    return epochs["processed"], loops["epoch_loop.batch_progress"]["current"]["ready"] if is_within_epoch else 0


def find_start(folder: MemberFolder, title: str, within_epoch: bool = True) -> Start:
    """Return where a training of the member starts: after its newest undamaged checkpoint.

    Damaged checkpoints are removed.

    Args:
        folder: member folder.
        title: name of the member in messages.
        within_epoch: whether checkpoints within an epoch may be used.
    """
    damaged: list[str] = []
    start = Start()
    for file in folder.checkpoints:
        if not file.is_file():
            continue
        try:
            checkpoint = read_checkpoint(file)
        except ValueError:
            damaged.append(file.name)
            with suppress(OSError):
                file.unlink()
            continue
        epoch, batches = position(checkpoint)
        if batches and not within_epoch:
            continue
        start = Start(file, epoch, batches, **checkpoint.get(OWN, {}).get("settings", {}))
        break
    if damaged:
        what = f"{' and '.join(damaged)} {'is' if len(damaged) == 1 else 'are'} damaged"
        then = f"continuing from {start.file.name}" if start.file is not None else "training from the beginning"
        log.warning(f"{title}: {what}; {then}")
    return start


def end_of_last_epoch(folder: MemberFolder, epoch: int) -> dict[str, Any] | None:
    """Return the checkpoint of the end of the last epoch; ``None`` if there is none.

    Args:
        folder: member folder.
        epoch: number of finished epochs.
    """
    for checkpoint in _readable(folder):
        if position(checkpoint) == (epoch, 0):
            return checkpoint
    return None


def _readable(folder: MemberFolder) -> Iterator[dict[str, Any]]:
    for file in folder.checkpoints:
        with suppress(ValueError):
            yield read_checkpoint(file)
