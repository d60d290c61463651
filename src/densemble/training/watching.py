"""Watching a training from outside: the score of every epoch, told as it comes."""

from collections.abc import Callable

import lightning
from lightning.pytorch.callbacks import Callback


class EpochScore(Callback):
    """Tells a listener the held-out score after every epoch; what the listener raises ends the training.

    Args:
        metric: its name in the log, for instance ``val_cc``; an epoch without it is passed over.
        tell: called with (epoch, counted from 1; score).
    """

    def __init__(self, metric: str, tell: Callable[[int, float], None]) -> None:
        self.metric = metric
        self.tell = tell

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        score = trainer.callback_metrics.get(self.metric)
        if score is not None:
            self.tell(trainer.current_epoch + 1, float(score))
