"""Callbacks for the end of every epoch: metrics, best weights, last checkpoint, time limit, progress."""

import csv
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from densemble.progress.display import shown_progress
from densemble.progress.phases import Epoch, Phase, end_epoch, phase, show_activity
from densemble.storage.csv_cells import write_csv
from densemble.storage.runs import MemberFolder
from densemble.storage.weight_files import write_tensors
from densemble.storage.writing import atomic_text
from densemble.training.module import MemberModule, mean, scalars
from densemble.training.quiet import silence_lightning
from densemble.untrusted import decoded, excerpt, read_regular

log = logging.getLogger(__name__)


class EpochRecord(Callback):
    """Writes ``metrics.csv``, the best weights and ``last.ckpt`` after every epoch; each write is atomic.

    It must come before a callback that averages weights, so that it saves the weights that were validated.
    """

    def __init__(self, folder: MemberFolder) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self._epoch_start = self._batch_end = time.monotonic()
        self._waited = self._training = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best, "elapsed": time.monotonic() - self._epoch_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = list(state_dict["rows"]), state_dict["best"]
        self._epoch_start = time.monotonic() - state_dict.get("elapsed", 0.0)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._epoch_start = self._batch_end = time.monotonic()
        self._waited = self._training = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        self._waited += time.monotonic() - self._batch_end

    def on_train_batch_end(self, *args: Any) -> None:
        self._batch_end = time.monotonic()
        self._training = self._batch_end - self._epoch_start

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MemberModule)
        row = {
            "epoch": float(trainer.current_epoch + 1),
            "train_loss": mean(pl_module.training_loss),
            "val_loss": mean(pl_module.validation_loss),
            **{f"val_{key}": value for key, value in scalars(pl_module.scores.compute()).items()},
            "learning_rate": trainer.optimizers[0].param_groups[-1]["lr"],
            "data_share": self._waited / max(self._training, 1e-9),
        }
        pl_module.training_loss = []
        self.rows.append(row)
        if self.best is None or self._better(pl_module, row):
            self.best = row
            if trainer.is_global_zero:
                write_tensors(self.folder.weights, pl_module.model.state_dict())

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.rows[-1]["seconds"] = time.monotonic() - self._epoch_start
        if trainer.is_global_zero:
            write_rows(self.folder.metrics, [{key: f"{value:.6g}" for key, value in row.items()} for row in self.rows])
        trainer.save_checkpoint(self.folder.last)  # rank 0 writes, and waits until every rank calls it

    def _better(self, module: MemberModule, row: dict[str, float]) -> bool:
        assert self.best is not None
        name, sign = f"val_{module.task.primary}", 1 if module.task.higher_is_better else -1
        if name not in row or name not in self.best:
            return row["val_loss"] < self.best["val_loss"]
        if math.isnan(self.best[name]):
            return not math.isnan(row[name])
        return sign * row[name] > sign * self.best[name]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with one column for every key; a row without a key leaves its cell empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_text(path, newline="") as file:
        write_csv(file, [columns, *([row.get(column, "") for column in columns] for row in rows)])


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read the rows of a ``metrics.csv``; empty cells are left out. A damaged file has no rows, which is logged."""
    try:
        rows = csv.DictReader(decoded(read_regular(path)).splitlines())
        return [{key: float(value) for key, value in row.items() if value} for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        log.warning(f"warning: '{path}' is damaged ({excerpt(str(error))}); its epochs are left out")
        return []


class TimeLimit(Callback):
    """Stops a training, if necessary within an epoch, early enough to validate before its time runs out.

    Args:
        seconds: limit for the whole training, validation included.
        held_out: number of validation images.
        clock: returns the current time in seconds.
    """

    def __init__(self, seconds: float, held_out: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.held_out = held_out
        self.clock = clock
        self.started = self._timer_start = clock()
        self._seconds_per_image = float("inf")
        self._validation = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        self._timer_start = self.clock()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        seconds = (self.clock() - self._timer_start) / len(batch[1])
        self._seconds_per_image = min(self._seconds_per_image, seconds)
        self._stop_in_time(trainer)

    def _stop_in_time(self, trainer: lightning.Trainer) -> None:
        is_over = self.clock() - self.started + self.reserve > self.seconds
        # All processes stop together: the others would wait forever for the gradients of one that stopped alone.
        if trainer.strategy.reduce_boolean_decision(is_over, all=False):
            trainer.should_stop = True

    @property
    def reserve(self) -> float:
        """Seconds of a validation; before the first one, a third of the training time per image, plus 20 %."""
        return self._validation or 1.2 * self.held_out * self._seconds_per_image / 3

    def on_validation_start(self, *args: Any) -> None:
        self._timer_start = self.clock()

    def on_validation_end(self, *args: Any) -> None:
        self._validation = self.clock() - self._timer_start

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._stop_in_time(trainer)


class LiveProgress(Callback):
    """Opens phases for the epochs and batches of a training, and shows the end of every epoch.

    Training on several devices runs in new processes, in which the first one shows its own progress.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.opened = ExitStack()
        self.epochs = self.batches = Phase("")

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        silence_lightning()  # training on several devices starts new processes, which do not inherit this

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.opened.enter_context(shown_progress())
        self.epochs = self.opened.enter_context(phase("epoch", trainer.max_epochs, steps=True))
        self.batches = self.opened.enter_context(phase("", int(trainer.num_training_batches)))
        self.batches.done = trainer.fit_loop.epoch_loop.batch_progress.current.ready  # of an epoch that continues

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.batches.done = 0
        self.epochs.start(trainer.current_epoch, "")

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches.advance()

    def on_validation_batch_end(self, *args: Any) -> None:
        show_activity()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MemberModule)
        record = next(callback for callback in trainer.callbacks if isinstance(callback, EpochRecord))  # type: ignore[attr-defined]
        row, task = record.rows[-1], pl_module.task
        end_epoch(
            Epoch(
                self.title, trainer.current_epoch + 1, trainer.max_epochs or 0, row["train_loss"], task.primary,
                row.get(f"val_{task.primary}"), task.higher_is_better, row["seconds"],
            )
        )  # fmt: skip

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, _: BaseException) -> None:
        self.opened.close()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.opened.close()
