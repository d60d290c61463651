"""Measured cost of a member's training: steps on a copy of the model with one batch, one prediction, one score."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import default_collate

from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.ensemble.resize import resize_maps
from densemble.evaluation.benchmark.interleave import synchronize
from densemble.evaluation.scores import images_with_targets
from densemble.nets.dense import DenseModel
from densemble.shapes import Size
from densemble.tasks import Task
from densemble.training.fit import first_batch, is_out_of_memory, training_device, training_samples
from densemble.training.module import let_learn, logits_of
from densemble.training.settings import MemberFit
from densemble.training.single_values import normalize_single_values

Clock = Callable[[], float]
CPU_IMAGES = 2
"""Images of the measured batch on a CPU, where time is proportional to their number."""
SCORED = 4
"""Validation images that are read and scored to measure what that takes."""
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepTimes:
    """Seconds of parts of a training.

    Attributes:
        step: one optimizer step with a full batch, loading included.
        validation: one validation image.
        features: one image's features, where they are computed once and kept; else 0.
        batch: images in a step.
    """

    step: float
    validation: float
    features: float
    batch: int


def measure_steps(fit: MemberFit, clock: Clock) -> StepTimes:
    """Measures a training step and a validation; the model is not changed.

    A batch that does not fit into memory is halved, as in training.
    """
    batch = first_batch(fit.settings)
    while True:
        try:
            return _Trial(fit, clock).measure(batch)
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch = -(-batch // 2)


class _Trial:
    """A copy of a model that is trained for two steps."""

    def __init__(self, fit: MemberFit, clock: Clock) -> None:
        device = training_device(fit.settings.machine)
        self.model = copy.deepcopy(fit.model).to(device)
        normalize_single_values(self.model)
        self.fit, self.task, self.settings = fit, fit.task, fit.settings
        self.device = torch.device(device)
        self.clock = clock
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def measure(self, batch: int) -> StepTimes:
        count = min(batch if self.device.type == "cuda" else CPU_IMAGES, batch, len(self.fit.train))
        samples = training_samples(self.fit)
        started = self.clock()
        images, targets = default_collate([samples[0, index] for index in range(count)])
        loading = self.clock() - started
        images, targets = images.to(self.device), targets.to(self.device)
        given: Tensor | list[Tensor] = images
        features = 0.0
        if self.settings.cache_features:
            given = self._features(images)
            features, loading = self._timed(lambda: self._features(images)) / count, 0.0
        self.model.train()
        let_learn(self.model.backbone, self.settings, self.settings.epochs - 1)
        self._step(given, targets)  # prepares kernels and memory
        step = self._timed(lambda: self._step(given, targets))
        self.model.eval()
        validation = self._timed(lambda: self._validate(given, targets))
        # Processes load batches beside a GPU; on a CPU loading takes time from the step.
        step = max(step, loading / 4) if self.device.type == "cuda" else step + loading
        return StepTimes(step * batch / count, validation / count, features, batch)

    def _timed(self, call: Callable[[], object]) -> float:
        synchronize(self.device)
        started = self.clock()
        call()
        synchronize(self.device)
        return self.clock() - started

    def _precision(self) -> torch.autocast:
        kind = AUTOCAST.get(self.settings.precision)
        return torch.autocast(self.device.type, kind or torch.bfloat16, enabled=kind is not None)

    @torch.no_grad()
    def _features(self, images: Tensor) -> list[Tensor]:
        self.model.eval()
        with self._precision():
            return [level.float() for level in self.model.features(images)]

    def _step(self, given: Tensor | list[Tensor], targets: Tensor) -> None:
        self.optimizer.zero_grad()
        with self._precision():
            loss = self.task.loss(logits_of(self.model, given, targets), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def _validate(self, given: Tensor | list[Tensor], targets: Tensor) -> None:
        with self._precision():
            logits = logits_of(self.model, given, targets)
        metric = self.task.metrics()
        for maps, target in zip(self.task.activation(logits.float()), targets, strict=True):
            metric.update(maps, target)


@torch.no_grad()
def measure_prediction(model: DenseModel, image: Tensor, device: str, clock: Clock) -> float:
    """Seconds of a forward pass of one image ``(1, C, H, W)`` at its own size; the model stays as it is.

    An image that does not fit into the memory of a GPU is computed on the CPU, as it is after the training.
    """
    was_training = model.training
    model.eval().to(device)
    try:
        if device == "cuda":
            model(image.to(device))  # the first pass prepares kernels
            synchronize(torch.device(device))
        started = clock()
        model(image.to(device))
        synchronize(torch.device(device))
        return clock() - started
    except RuntimeError as error:
        if device == "cpu" or not is_out_of_memory(error):
            raise
        return measure_prediction(model.cpu(), image, "cpu", clock)
    finally:
        model.train(was_training).cpu()


@dataclass(frozen=True)
class ScoringTimes:
    """Seconds of scoring one validation image.

    Attributes:
        own: reading it and scoring one map at its own size.
        kept: scoring one map at the size of the kept predictions.
        image: one of them ``(1, C, H, W)``.
    """

    own: float
    kept: float
    image: Tensor


def measure_scoring(task: Task, data: FolderData, map_size: Size, clock: Clock) -> ScoringTimes:
    """Means of up to ``SCORED`` validation images.

    Args:
        map_size: (h, w) of kept predictions.
    """
    numbers = range(min(SCORED, len(data.val)))
    density = task.target_kind == "density"
    metric, kept_metric, kept, images = task.metrics(), task.metrics(), 0.0, []
    begun = clock()
    for image, target, points in images_with_targets(data, "val", numbers):
        maps = torch.full((1, task.out_channels, *image.shape[-2:]), 1 / task.out_channels)
        size: Size = (int(target.shape[-2]), int(target.shape[-1]))
        metric.update(resize_maps(maps, size, density)[0], target, points)
        started = clock()
        small = resize_target(target, map_size, task.target_kind)
        kept_metric.update(resize_maps(maps, map_size, density)[0], small)
        kept += clock() - started
        images.append(image)
    own = clock() - begun - kept
    return ScoringTimes(own / len(numbers), kept / len(numbers), images[0])
