"""Callback that reports the held-out score of every epoch to a function."""

from collections.abc import Callable
from dataclasses import dataclass

import lightning
from lightning.pytorch.callbacks import Callback


@dataclass(eq=False)
class EpochScore(Callback):
    """Call a function with the held-out score after every epoch; if the function raises, training stops.

    Args:
        metric: name in the log, for instance ``val_cc``; epochs without it are skipped.
        report: called with the epoch, counted from 1, and the score.
    """

    metric: str
    report: Callable[[int, float], None]

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        score = trainer.callback_metrics.get(self.metric)
        if score is not None:
            self.report(trainer.current_epoch + 1, float(score))
