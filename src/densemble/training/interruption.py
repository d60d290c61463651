"""Resume a training exactly: random states, position within an epoch, and a checkpoint on SIGTERM."""

import signal
import threading
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging

from densemble.errors import Terminated
from densemble.storage.runs import MemberFolder
from densemble.training.checkpoints import KEPT_IN_MEMORY, OWN, CheckpointFiles
from densemble.training.random_state import random_states, restore_random_state


class Interruption(Callback):
    """Stores what Lightning's checkpoints lack; on SIGTERM, saves a checkpoint within the epoch and stops.

    It must be the last callback: a checkpoint within an epoch is saved after the others have handled the batch, and
    random states are restored after the others have started.

    Args:
        folder: member folder.
        files: plugin that writes the checkpoints.
        settings: ``batch_size``, ``accumulate`` and ``learning_rate``, which a resumed training takes over.
    """

    def __init__(self, folder: MemberFolder, files: CheckpointFiles, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.files = files
        self.settings = settings
        self._requested = False
        self._handler: Any = None
        self._states: list[dict[str, Any]] = []

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[OWN] = {"settings": self.settings, "random": random_states()}

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._states = checkpoint.get(OWN, {}).get("random", [])

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience:
                trainer.should_stop = True  # the training had ended, but not the work that follows it

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._request)
        if self._states:
            restore_random_state(self._states)
            self._states = []

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if not self._requested or trainer.should_stop:
            return
        # After the last batch, the checkpoint is that before the validation. Sums of gradients cannot be saved.
        is_last = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        if not is_last and (index + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.folder.last)
            self._stop()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._handler is None or trainer.should_stop:
            return
        trainer.save_checkpoint(self.folder.last, storage_options=KEPT_IN_MEMORY)
        assert self.files.kept is not None
        _before_validation(self.files.kept)
        if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            # The validation exchanges the values of the current and of the averaged weights.
            for key in ("state_dict", "current_model_state", "averaging_state"):
                tensors = self.files.kept.get(key, {})
                self.files.kept[key] = {name: tensor.clone() for name, tensor in tensors.items()}
        self._stop_in_validation()

    def on_validation_batch_end(self, *args: Any) -> None:
        self._stop_in_validation()

    def _stop_in_validation(self) -> None:
        if self._requested and self.files.kept is not None:
            self.files.save_checkpoint(self.files.kept, self.folder.last)
            self._stop()

    def on_validation_end(self, *args: Any) -> None:
        self.files.kept = None

    def on_train_epoch_end(self, *args: Any) -> None:
        if self._requested:
            self._stop()

    def on_train_end(self, *args: Any) -> None:
        self._restore_handler()
        if self._requested:
            self._stop()

    def on_exception(self, *args: Any) -> None:
        self._restore_handler()

    def _stop(self) -> None:
        raise Terminated(143)

    def _restore_handler(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None


def _before_validation(checkpoint: dict[str, Any]) -> None:
    """Change the progress in a checkpoint so that Lightning repeats the validation from its first batch."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        done = counts["completed"]
        counts |= {"ready": done + 1, "started": done + 1, "processed": done}
