"""The LightningModule: a dense model, its task, its optimizer and its schedule."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from densemble.metrics import Metric
from densemble.nets.blocks import blocks
from densemble.nets.dense import DenseModel
from densemble.shapes import size_of
from densemble.tasks import Task
from densemble.training.divergence import Divergence
from densemble.training.settings import FitSettings

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits ``(B, K, h, w)`` and a batch of targets -> scalar."""
WARMUP = 0.05


class TrainingProgress:
    """Progress of a training, 0 to 1: by steps, or by time if the time runs out first."""

    def __init__(self, steps: int, seconds: float | None) -> None:
        self.steps = max(steps, 1)
        self.seconds = seconds
        self.started = time.monotonic()

    def at(self, step: int) -> float:
        """Return the progress after ``step`` steps."""
        share = step / self.steps
        if self.seconds is not None:
            share = max(share, (time.monotonic() - self.started) / max(self.seconds, 1e-6))
        return min(share, 1.0)


def schedule(progress: float) -> float:
    """Return the factor on the peak learning rate: linear warm-up, then half a cosine down to 1 %."""
    if progress < WARMUP:
        return max(progress / WARMUP, 0.05)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def backbone_rates(backbone: nn.Module, peak: float, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Return the parameters and peak learning rate of each block: ``peak`` x ``decay`` per block before the head.

    Layer-wise decay as in ELECTRA (Clark et al. 2020) and BEiT (Bao et al. 2022).
    """
    if decay == 1:
        return [(list(backbone.parameters()), peak)]
    groups = list(blocks(backbone).values())
    return [(group, peak * decay ** (len(groups) - 1 - i)) for i, group in enumerate(groups)]


def parameter_groups(model: DenseModel, settings: FitSettings, learning_rate: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups for a peak learning rate of the head; the head is the last group."""
    rates = backbone_rates(model.backbone, learning_rate * settings.backbone_share, settings.layer_decay)
    groups: list[dict[str, Any]] = [{"params": parameters, "lr": rate} for parameters, rate in rates]
    return [*groups, {"params": list(model.head.parameters()), "lr": learning_rate}]


def set_training_mode(backbone: nn.Module, settings: FitSettings, epoch: int) -> None:
    """Freeze or unfreeze a backbone as the settings require for an epoch, counted from 0."""
    trainable = epoch >= settings.freeze_epochs
    backbone.requires_grad_(trainable)
    backbone.train(trainable)
    if settings.freeze_statistics:
        for module in backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def compute_logits(model: DenseModel, inputs: Tensor | list[Tensor], target: Tensor) -> Tensor:
    """Return the logits of images, or of a list of cached features."""
    logits: Tensor = model(inputs) if isinstance(inputs, Tensor) else model.head(inputs, size_of(target))
    return logits


class MemberModule(lightning.LightningModule):
    """Trains one dense model on one task (AdamW, warm-up and cosine).

    Args:
        model, task, settings: as in :class:`densemble.training.settings.MemberFit`.
        steps: optimizer steps of the whole training.
        learning_rate: peak learning rate of the head.
        loss: loss of the training, of logits and targets; default: the task's.
    """

    def __init__(
        self,
        model: DenseModel,
        task: Task,
        settings: FitSettings,
        steps: int,
        learning_rate: float,
        loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.settings = settings
        self.learning_rate = learning_rate
        self.loss = loss or task.loss
        self.progress = TrainingProgress(steps, settings.seconds)
        self.scores: Metric = task.metrics()
        self.validation_loss: list[float] = []
        self.training_loss: list[float] = []
        self.divergence = Divergence()

    def progress_at(self, step: int) -> float:
        """Return the progress after ``step`` steps; all processes get the same value."""
        share = self.progress.at(step)
        if self.settings.seconds is None:
            return share
        # Without the broadcast, clocks and therefore learning rates would differ, and the weights would diverge.
        return float(self.trainer.strategy.broadcast(share))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["training_loss"] = list(self.training_loss)
        checkpoint["divergence"] = asdict(self.divergence)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_loss = list(checkpoint.get("training_loss", []))
        self.divergence = Divergence(**checkpoint.get("divergence", {}))

    def on_train_start(self) -> None:
        set_training_mode(self.model.backbone, self.settings, self.current_epoch)  # it may begin within an epoch

    def on_train_epoch_start(self) -> None:
        # Lightning restores the mode of every module after each validation.
        set_training_mode(self.model.backbone, self.settings, self.current_epoch)

    def training_step(self, batch: tuple[Tensor | list[Tensor], Tensor], batch_index: int) -> Tensor | None:
        inputs, target = batch
        try:
            loss = self.loss(compute_logits(self.model, inputs, target), target)
        except StopIteration as error:  # Lightning would take it for the end of the epoch
            raise RuntimeError("the network or the loss raised StopIteration") from error
        value = float(loss.detach())
        # All processes skip a batch together: the others would wait for the gradients of one that skipped it alone.
        if self.trainer.strategy.reduce_boolean_decision(not math.isfinite(value), all=False):
            self.divergence.add(is_finite=False)
            return None  # without gradients, the step changes nothing
        self.divergence.add(is_finite=True)
        self.training_loss.append(value)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(target))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.scores = self.task.metrics()
        self.validation_loss = []

    def validation_step(self, batch: tuple[Tensor | list[Tensor], Tensor], batch_index: int) -> None:
        inputs, target = batch
        logits = compute_logits(self.model, inputs, target)
        if not bool(logits.isfinite().all()):  # metrics refuse such maps; see RollBack
            self.validation_loss.append(float("nan"))
            return
        self.validation_loss.append(float(self.task.loss(logits, target)))
        for maps, image_target in zip(self.task.activation(logits.float()), target, strict=True):
            self.scores.update(maps, image_target)

    def on_validation_epoch_end(self) -> None:
        scores = {f"val_{key}": value for key, value in scalars(self.scores.compute()).items()}
        self.log_dict({"val_loss": mean(self.validation_loss), **scores})

    @property
    def _is_fused(self) -> bool:
        """Whether one kernel updates all weights; with float16 it would also unscale, before they are clipped."""
        return self.settings.precision != "fp16" and next(self.model.parameters()).is_cuda

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        if self._is_fused and gradient_clip_val:  # Lightning refuses to clip for any fused optimizer
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.model, self.settings, self.learning_rate)
        optimizer = torch.optim.AdamW(groups, weight_decay=self.settings.weight_decay, fused=self._is_fused or None)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.divergence.rate_factor * schedule(self.progress_at(step))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """Return the entries that are single numbers."""
    return {key: float(value) for key, value in values.items() if isinstance(value, int | float)}


def mean(values: list[float]) -> float:
    """Return the mean, NaN for an empty list."""
    return sum(values) / len(values) if values else float("nan")
