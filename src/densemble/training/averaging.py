"""Averaged weights: what is validated and kept is a mean over steps (EMA) or over the last epochs (SWA)."""

from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from densemble.training.module import MemberModule

DECAY = 0.999
SWA_FROM = 0.75


def _warming_average(averaged: Any, current: Any, count: Any) -> None:
    """EMA whose memory grows with the steps, so that a short training does not keep its first weights."""
    steps = float(count)
    average = get_ema_multi_avg_fn(min(DECAY, (1 + steps) / (10 + steps)))  # type: ignore[no-untyped-call]
    average(averaged, current, count)


class MovingAverage(WeightAveraging):
    """Exponential moving average over steps (Polyak & Juditsky 1992), decay 0.999 once warmed up."""

    def __init__(self) -> None:
        super().__init__(multi_avg_fn=_warming_average)


class LateAverage(WeightAveraging):
    """Mean over the epochs of the last quarter of the training (SWA, Izmailov et al. 2018)."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return False  # the trainer asks after the validation, and the last epoch would be missing in what is kept

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MemberModule) and self._average_model is not None
        if pl_module.progress_at(trainer.global_step) >= SWA_FROM:
            self._average_model.update_parameters(pl_module)
        if self._begun:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._begun:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._begun:
            super().on_train_end(trainer, pl_module)

    @property
    def _begun(self) -> bool:
        """Before the last quarter there is no mean, only the weights that training began with."""
        return self._average_model is not None and int(self._average_model.n_averaged) > 0


AVERAGING: dict[str, Callable[[], WeightAveraging]] = {"ema": MovingAverage, "swa": LateAverage}
"""Callback by name."""
