"""Weight averaging over steps (EMA) or over the last epochs (SWA); the averaged weights are validated and saved."""

from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from densemble.training.module import MemberModule

DECAY = 0.999
SWA_FROM = 0.75


def _warming_average(averaged: Any, current: Any, count: Any) -> None:
    """Update an EMA whose decay grows with the steps, so that a short training forgets its initial weights."""
    steps = float(count)
    average = get_ema_multi_avg_fn(min(DECAY, (1 + steps) / (10 + steps)))  # type: ignore[no-untyped-call]
    average(averaged, current, count)


class MovingAverage(WeightAveraging):
    """Exponential moving average over steps (Polyak & Juditsky 1992), decay 0.999 once warmed up."""

    def __init__(self) -> None:
        super().__init__(multi_avg_fn=_warming_average)


class LateAverage(WeightAveraging):
    """Mean of the weights after each epoch in the last quarter of the training (SWA, Izmailov et al. 2018)."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return False  # Lightning would update after the validation, and the saved weights would miss the last epoch

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MemberModule) and self._average_model is not None
        if pl_module.progress_at(trainer.global_step) >= SWA_FROM:
            self._average_model.update_parameters(pl_module)
        if self._has_average:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._has_average:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._has_average:
            super().on_train_end(trainer, pl_module)

    @property
    def _has_average(self) -> bool:
        """Whether the mean holds any epoch; before the last quarter it holds only the initial weights."""
        return self._average_model is not None and int(self._average_model.n_averaged) > 0


AVERAGING: dict[str, Callable[[], WeightAveraging]] = {"ema": MovingAverage, "swa": LateAverage}
"""Callbacks by the name in ``training.averaging``."""
