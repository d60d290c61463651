"""The LightningModule: a dense model, its task, its optimizer and its schedule."""

import math
import time
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from densemble.errors import DivergedError
from densemble.metrics import Metric
from densemble.nets.blocks import blocks
from densemble.nets.dense import DenseModel
from densemble.tasks import Task
from densemble.training.settings import FitSettings

WARMUP = 0.05


class TrainingProgress:
    """How far a training is, 0..1: by steps, or by time where that runs out first."""

    def __init__(self, steps: int, seconds: float | None) -> None:
        self.steps = max(steps, 1)
        self.seconds = seconds
        self.started = time.monotonic()

    def at(self, step: int) -> float:
        """Progress when ``step`` steps are done."""
        share = step / self.steps
        if self.seconds is not None:
            share = max(share, (time.monotonic() - self.started) / max(self.seconds, 1e-6))
        return min(share, 1.0)


def schedule(progress: float) -> float:
    """Factor of the peak learning rate: linear warm-up, then half a cosine down to 1 %."""
    if progress < WARMUP:
        return max(progress / WARMUP, 0.05)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def backbone_rates(backbone: nn.Module, peak: float, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Peak learning rate of each block of a backbone: ``peak`` x ``decay`` per block between it and the head.

    Layer-wise decay as in ELECTRA (Clark et al. 2020) and BEiT (Bao et al. 2022).
    """
    if decay == 1:
        return [(list(backbone.parameters()), peak)]
    groups = list(blocks(backbone).values())
    return [(group, peak * decay ** (len(groups) - 1 - i)) for i, group in enumerate(groups)]


def let_learn(backbone: nn.Module, settings: FitSettings, epoch: int) -> None:
    """Puts a backbone into the mode that an epoch, counted from 0, trains it in."""
    learns = epoch >= settings.freeze_epochs
    backbone.requires_grad_(learns)
    backbone.train(learns)
    if settings.freeze_statistics:
        for part in backbone.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()


def logits_of(model: DenseModel, given: Tensor | list[Tensor], target: Tensor) -> Tensor:
    """Logits for images, or for features that were computed before."""
    if isinstance(given, Tensor):
        logits: Tensor = model(given)
    else:
        logits = model.head(given, (target.shape[-2], target.shape[-1]))
    return logits


class MemberModule(lightning.LightningModule):
    """Trains one dense model on one task (AdamW, warm-up and cosine).

    Args:
        model, task, settings: what, for what, and how.
        steps: of the optimizer, in the whole training.
        learning_rate: peak, of the head.
    """

    def __init__(self, model: DenseModel, task: Task, settings: FitSettings, steps: int, learning_rate: float) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.settings = settings
        self.learning_rate = learning_rate
        self.progress = TrainingProgress(steps, settings.seconds)
        self.scores: Metric = task.metrics()
        self.validation_loss: list[float] = []
        self.training_loss: list[float] = []

    def progress_at(self, step: int) -> float:
        """Progress when ``step`` steps are done, the same in all processes that train together."""
        share = self.progress.at(step)
        if self.settings.seconds is None:
            return share
        # Each process reads the clock at its own moment, and rates that differ would pull their weights apart.
        return float(self.trainer.strategy.broadcast(share))

    def on_train_epoch_start(self) -> None:
        # The trainer restores every part's own mode after each validation.
        let_learn(self.model.backbone, self.settings, self.current_epoch)

    def training_step(self, batch: tuple[Tensor | list[Tensor], Tensor], batch_index: int) -> Tensor:
        given, target = batch
        loss = self.task.loss(logits_of(self.model, given, target), target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(
                f"{self.model.spec.backbone}: the loss became {value} at step {self.global_step}; "
                "lower learning_rate, or train with precision fp32"
            )
        self.training_loss.append(value)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(target))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.scores = self.task.metrics()
        self.validation_loss = []

    def validation_step(self, batch: tuple[Tensor | list[Tensor], Tensor], batch_index: int) -> None:
        given, target = batch
        logits = logits_of(self.model, given, target)
        self.validation_loss.append(float(self.task.loss(logits, target)))
        for maps, wanted in zip(self.task.activation(logits.float()), target, strict=True):
            self.scores.update(maps, wanted)

    def on_validation_epoch_end(self) -> None:
        found = {f"val_{key}": value for key, value in scalars(self.scores.compute()).items()}
        self.log_dict({"val_loss": mean(self.validation_loss), **found})

    def configure_optimizers(self) -> Any:
        s = self.settings
        peak = self.learning_rate * s.backbone_share
        groups = [
            {"params": parameters, "lr": rate}
            for parameters, rate in backbone_rates(self.model.backbone, peak, s.layer_decay)
        ]
        groups.append({"params": list(self.model.head.parameters()), "lr": self.learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=s.weight_decay)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(self.progress_at(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """The entries that are single numbers."""
    return {key: float(value) for key, value in values.items() if isinstance(value, int | float)}


def mean(values: list[float]) -> float:
    """Of no values: NaN."""
    return sum(values) / len(values) if values else float("nan")
