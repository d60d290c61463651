"""The LightningModule: a dense model, its task, its optimizer and its schedule."""

import math
import time
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from densemble.errors import DivergedError
from densemble.metrics import Metric
from densemble.nets.blocks import blocks
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
        layer_decay: factor on the learning rate per block of the backbone, counted from the head.
        freeze_epochs: epochs in which only the head learns.
        gradient_checkpointing: compute the backbone's inner maps again for the gradient instead of keeping them.
        channels_last: NHWC in memory.
        cache_features: keep the features of a backbone that never learns on disk.
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
    layer_decay: float = 1.0
    freeze_epochs: int = 0
    gradient_checkpointing: bool = False
    channels_last: bool = True
    cache_features: bool = False
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


def backbone_rates(backbone: nn.Module, peak: float, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Peak learning rate of each block of a backbone: ``peak`` x ``decay`` per block between it and the head.

    Layer-wise decay as in ELECTRA (Clark et al. 2020) and BEiT (Bao et al. 2022).
    """
    if decay == 1:
        return [(list(backbone.parameters()), peak)]
    groups = list(blocks(backbone).values())
    return [(group, peak * decay ** (len(groups) - 1 - i)) for i, group in enumerate(groups)]


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

    def logits(self, given: Tensor | list[Tensor], target: Tensor) -> Tensor:
        """Logits for images, or for features that were computed before."""
        if isinstance(given, Tensor):
            logits: Tensor = self.model(given)
        else:
            logits = self.model.head(given, (target.shape[-2], target.shape[-1]))
        return logits

    def on_train_epoch_start(self) -> None:
        backbone, learns = self.model.backbone, self.current_epoch >= self.settings.freeze_epochs
        backbone.requires_grad_(learns)
        backbone.train(learns)  # the trainer restores every part's own mode after each validation
        if self.settings.freeze_statistics:
            for part in backbone.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def training_step(self, batch: tuple[Tensor | list[Tensor], Tensor], batch_index: int) -> Tensor:
        given, target = batch
        loss = self.task.loss(self.logits(given, target), target)
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

    def validation_step(self, batch: tuple[Tensor | list[Tensor], Tensor], batch_index: int) -> None:
        given, target = batch
        logits = self.logits(given, target)
        self.validation_loss.append(float(self.task.loss(logits, target)))
        for maps, wanted in zip(self.task.activation(logits.float()), target, strict=True):
            self.scores.update(maps, wanted)

    def configure_optimizers(self) -> Any:
        s = self.settings
        groups = [
            {"params": parameters, "lr": rate}
            for parameters, rate in backbone_rates(self.model.backbone, s.backbone_learning_rate, s.layer_decay)
        ]
        groups.append({"params": list(self.model.head.parameters()), "lr": s.learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=s.weight_decay)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(self.progress.at(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}
