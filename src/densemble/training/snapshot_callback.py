"""Snapshots: weights from the way of one training, which disagree a little and cost no training of their own."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from densemble.storage.runs import MemberFolder
from densemble.storage.weight_files import write_state
from densemble.training.module import MemberModule

FROM = 0.5
_ROUNDING = 1e-6


def moments(count: int) -> list[float]:
    """Progress of a training, 0..1, at which snapshots are due: equally spaced in its second half, up to its end."""
    return [FROM + (1 - FROM) * (number + 1) / count for number in range(count)]


class Snapshots(Callback):
    """Keeps the weights that were validated as ``snapshots/EPOCH.safetensors``, at most once per epoch.

    Checkpoint ensembles (Chen et al. 2017): the epochs lie on the way of a usual training. Snapshot ensembles (Huang
    et al. 2017) raise the learning rate again after each one, which costs the best weights that a member has.
    A training that is cut short keeps those it had, and where its time runs out within an epoch the last weights too.

    It must come before a callback that averages weights: what was validated is what is kept.
    """

    def __init__(self, folder: MemberFolder, count: int) -> None:
        self.folder = folder
        self.count = count
        self._passed = 0

    def state_dict(self) -> dict[str, Any]:
        return {"passed": self._passed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._passed = int(state_dict["passed"])

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MemberModule)
        progress = pl_module.progress_at(trainer.global_step)  # asks the other processes: each has to come by here
        due = self.count if trainer.should_stop else sum(m <= progress + _ROUNDING for m in moments(self.count))
        if due > self._passed:
            self._passed = due
            if trainer.is_global_zero:
                self.folder.snapshots.mkdir(exist_ok=True)
                write_state(self.folder.snapshot(trainer.current_epoch + 1), pl_module.model.state_dict())
