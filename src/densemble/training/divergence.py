"""React to a loss that is not finite: skip the batch, return to earlier weights, give up."""

import logging
import math
from dataclasses import dataclass

import lightning
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

from densemble.errors import DivergedError
from densemble.storage.runs import MemberFolder
from densemble.training.checkpoints import end_of_last_epoch

log = logging.getLogger(__name__)
MOST_SKIPPED, MOST_ROLLBACKS = 3, 3


@dataclass
class Divergence:
    """Non-finite losses of a training; part of its checkpoints.

    Attributes:
        rate_factor: factor on the learning rate; halved by each return to earlier weights.
        in_a_row: skipped batches since the last finite loss.
        skipped, rollbacks: skipped batches, and returns to earlier weights, of the whole training.
    """

    rate_factor: float = 1.0
    in_a_row: int = 0
    skipped: int = 0
    rollbacks: int = 0

    def add(self, is_finite: bool) -> None:
        """Count the loss of a batch."""
        self.in_a_row = 0 if is_finite else self.in_a_row + 1
        self.skipped += not is_finite


class RollBack(Callback):
    """After a batch with a non-finite loss, returns to the weights of the last epoch if skipping it is not enough.

    It is not enough after ``MOST_SKIPPED`` skipped batches in a row, if the weights themselves are not finite, or if no
    validation batch has a finite loss. The learning rate is halved. After ``MOST_ROLLBACKS`` returns it gives up.

    It must come before a callback that averages weights.

    Args:
        folder: member folder.
        title: name of the member in messages.
        initial: weights before the first epoch.
    """

    def __init__(self, folder: MemberFolder, title: str, initial: dict[str, Tensor]) -> None:
        self.folder = folder
        self.title = title
        # Arrays: a tensor that is sent to another process stays in shared memory, under a file descriptor.
        self.initial = {name: tensor.cpu().numpy() for name, tensor in initial.items()}
        self._seen = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._seen = _divergence(pl_module).skipped

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: object
    ) -> None:
        divergence = _divergence(pl_module)
        if divergence.skipped == self._seen:
            return
        self._seen, where = divergence.skipped, f"{self.title}: the loss is not finite at step {trainer.global_step}"
        if divergence.in_a_row >= MOST_SKIPPED or not _is_finite(pl_module):
            self._roll_back(trainer, pl_module, where)
        else:
            log.warning(f"{where}; the batch is skipped")

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        losses: list[float] = pl_module.validation_loss  # type: ignore[assignment]
        if losses and not any(math.isfinite(loss) for loss in losses):
            self._roll_back(trainer, pl_module, f"{self.title}: no validation image has a finite loss")

    def _roll_back(self, trainer: lightning.Trainer, module: lightning.LightningModule, where: str) -> None:
        divergence = _divergence(module)
        if divergence.rollbacks >= MOST_ROLLBACKS:
            raise DivergedError(
                f"{where}, after {divergence.rollbacks} returns to earlier weights with half the learning rate; "
                "lower learning_rate, or train with precision fp32"
            )
        divergence.rollbacks += 1
        divergence.in_a_row = 0
        divergence.rate_factor /= 2
        checkpoint = end_of_last_epoch(self.folder, trainer.current_epoch)
        optimizer = trainer.optimizers[0]
        averaging = [c for c in trainer.callbacks if isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
        if checkpoint is None:
            initial = {name: torch.from_numpy(array) for name, array in self.initial.items()}
            module.model.load_state_dict(initial)  # type: ignore[union-attr]
            optimizer.state.clear()
            for callback in averaging:
                callback.setup(trainer, module, "fit")
        else:
            module.load_state_dict(checkpoint.get("current_model_state", checkpoint["state_dict"]))
            optimizer.load_state_dict(checkpoint["optimizer_states"][0])
            for callback in averaging:
                callback.on_load_checkpoint(trainer, module, checkpoint)
        (config,) = trainer.lr_scheduler_configs
        rates = config.scheduler.lr_lambdas  # type: ignore[union-attr]
        for group, peak, rate in zip(optimizer.param_groups, config.scheduler.base_lrs, rates, strict=True):
            group["lr"] = peak * rate(trainer.global_step)
        source = "initial weights" if checkpoint is None else f"weights of epoch {trainer.current_epoch}"
        log.warning(f"{where}; returned to the {source}, with {divergence.rate_factor:g} times the learning rate")


def _divergence(module: lightning.LightningModule) -> Divergence:
    divergence = module.divergence
    assert isinstance(divergence, Divergence)
    return divergence


def _is_finite(module: lightning.LightningModule) -> bool:
    tensors = (value for value in module.state_dict().values() if isinstance(value, Tensor))
    return all(bool(torch.isfinite(value).all()) for value in tensors if value.is_floating_point())
