"""Snapshots: weights saved during one training; they differ enough to combine and need no further training."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from densemble.storage.runs import MemberFolder
from densemble.storage.weight_files import write_tensors
from densemble.storage.writing import require_writable
from densemble.training.module import MemberModule

FROM = 0.5
_ROUNDING = 1e-6


def moments(count: int) -> list[float]:
    """Return the progress values, 0 to 1, at which snapshots are due: equally spaced over the second half."""
    return [FROM + (1 - FROM) * (index + 1) / count for index in range(count)]


class Snapshots(Callback):
    """Saves the validated weights as ``snapshots/EPOCH.safetensors``, at most once per epoch.

    As in checkpoint ensembles (Chen et al. 2017), the snapshots come from a training with the usual schedule. Snapshot
    ensembles (Huang et al. 2017) raise the learning rate again after each snapshot, which makes the best weights of
    the member worse. A training that stops early keeps the snapshots so far; one whose time runs out within an epoch
    also saves the last weights.

    It must come before a callback that averages weights, so that it saves the weights that were validated.
    """

    def __init__(self, folder: MemberFolder, count: int) -> None:
        self.folder = folder
        self.count = count
        self._taken = 0

    def state_dict(self) -> dict[str, Any]:
        return {"passed": self._taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._taken = int(state_dict["passed"])

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MemberModule)
        progress = pl_module.progress_at(trainer.global_step)  # a collective call: every process must make it
        due = self.count if trainer.should_stop else sum(m <= progress + _ROUNDING for m in moments(self.count))
        if due > self._taken:
            self._taken = due
            if trainer.is_global_zero:
                require_writable(self.folder.snapshots)
                write_tensors(self.folder.snapshot(trainer.current_epoch + 1), pl_module.model.state_dict())
