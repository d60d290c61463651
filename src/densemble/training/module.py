"""The LightningModule: a dense model, its task, its optimizer and its schedule."""

import math
import time
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor

from densemble.errors import DivergedError
from densemble.metrics import Metric
from densemble.nets.dense import DenseModel
from densemble.tasks import Task

WARMUP = 0.05


@dataclass(frozen=True)
class FitSettings:
    """How one member is trained.

    Attributes:
        epochs: passes over the training data.
        learning_rate: peak, of the head.
        backbone_learning_rate: peak, of the backbone.
        batch_size: pictures per step.
        weight_decay: of AdamW.
        augment: row of ``AUGMENT``.
        bf16: compute in bfloat16 with float32 weights.
        freeze_statistics: the backbone's batch normalization keeps its pretrained mean and variance.
        seed: of weights, order and augmentation.
        seconds: time that the training may take; the schedule then ends with the time.
    """

    epochs: int
    learning_rate: float
    backbone_learning_rate: float
    batch_size: int
    weight_decay: float
    augment: str
    bf16: bool
    freeze_statistics: bool
    seed: int
    seconds: float | None = None


class Progress:
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


class MemberModule(lightning.LightningModule):
    """Trains one dense model on one task (AdamW, warm-up and cosine)."""

    def __init__(self, model: DenseModel, task: Task, settings: FitSettings, steps: int) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.settings = settings
        self.progress = Progress(steps, settings.seconds)
        self.scores: Metric = task.metrics()
        self.validation_loss: list[float] = []
        self.training_loss: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, target = batch
        loss = self.task.loss(self.model(images), target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(
                f"{self.model.spec.backbone}: the loss became {value} at step {self.global_step}; "
                "lower learning_rate, or train with precision fp32"
            )
        self.training_loss.append(value)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.scores = self.task.metrics()
        self.validation_loss = []

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        images, target = batch
        logits = self.model(images)
        self.validation_loss.append(float(self.task.loss(logits, target)))
        for maps, wanted in zip(self.task.activation(logits.float()), target, strict=True):
            self.scores.update(maps, wanted)

    def configure_optimizers(self) -> Any:
        s = self.settings
        groups = [
            {"params": list(self.model.backbone.parameters()), "lr": s.backbone_learning_rate},
            {"params": list(self.model.head.parameters()), "lr": s.learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=s.weight_decay)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(self.progress.at(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}
