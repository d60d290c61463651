"""Measure the cost of a member's training: steps with one or two batches on a copy, one prediction, some scores."""

import copy
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import default_collate

from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.ensemble.resize import resize_maps
from densemble.evaluation.benchmark.interleave import synchronize
from densemble.evaluation.scores import images_with_targets
from densemble.nets.dense import DenseModel
from densemble.shapes import Size, size_of
from densemble.tasks import Task
from densemble.training.fit import augmented, first_batch, is_out_of_memory, training_device
from densemble.training.module import compute_logits, set_training_mode
from densemble.training.settings import MemberFit
from densemble.training.single_values import normalize_single_values

Clock = Callable[[], float]
CPU_IMAGES = 2
"""Images in the first measured batch on a CPU. The time is at most proportional to the number of images: a part of it,
such as the optimizer, does not depend on them. In small networks, most of it does not."""
SAMPLES = 4
"""Times of a step of which the lower median is used: on a busy machine, single steps may take many times as long."""
SCORED = 4
"""Validation images that are read and scored to measure the time."""
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the parts of a training.

    Attributes:
        step: one optimizer step with a full batch, loading included.
        validation: validation of one image.
        features: computation of one image's features if they are cached, else 0.
        batch: images per step.
    """

    step: float
    validation: float
    features: float
    batch: int


def measure_steps(fit: MemberFit, clock: Clock, longest: float = math.inf) -> StepTimes:
    """Measure a training step and a validation; the model is not changed.

    A batch that does not fit into memory is halved, as in training.

    Args:
        fit: the training.
        clock: returns seconds.
        longest: on a CPU, a step with a full batch is measured only if it takes at most this many seconds; else its
            time is an upper bound, in proportion to that of a small batch.
    """
    batch = first_batch(fit.settings)
    while True:
        try:
            return _StepTimer(fit, clock).measure(batch, longest)
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch = -(-batch // 2)


class _StepTimer:
    """Measures a copy of a model that it trains for a few steps."""

    def __init__(self, fit: MemberFit, clock: Clock) -> None:
        device = training_device(fit.settings.machine)
        self.model = copy.deepcopy(fit.model).to(device)
        normalize_single_values(self.model)
        self.fit, self.task, self.settings = fit, fit.task, fit.settings
        self.device = torch.device(device)
        self.clock = clock
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def measure(self, batch: int, longest: float) -> StepTimes:
        full = min(batch, len(self.fit.train))
        few = full if self.device.type == "cuda" else min(CPU_IMAGES, full)
        times = self._measure(few, full, 2, longest / SAMPLES)
        if few < full and times.step <= longest:
            times = self._measure(full, full, 1, longest / SAMPLES)
        return replace(times, batch=batch)

    def _measure(self, count: int, full: int, least: int, patience: float) -> StepTimes:
        """Measure with ``count`` images and scale the time of a step to ``full`` images.

        Steps and validations are measured at least ``least`` times, and again within ``patience`` seconds.
        """
        samples = augmented(self.fit, self.fit.train, self.settings.augment)
        started = self.clock()
        images, targets = default_collate([samples[0, index] for index in range(count)])
        loading = self.clock() - started
        images, targets = images.to(self.device), targets.to(self.device)
        inputs: Tensor | list[Tensor] = images
        features = 0.0
        if self.settings.cache_features:
            inputs = self._features(images)
            features, loading = self._timed(lambda: self._features(images)) / count, 0.0
        self.model.train()
        set_training_mode(self.model.backbone, self.settings, self.settings.epochs - 1)
        step = self._typical(lambda: self._step(inputs, targets), least, patience)
        self.model.eval()
        validation = self._typical(lambda: self._validate(inputs, targets), least, patience)
        # With a GPU, about four processes load batches in parallel; on a CPU, loading delays the step.
        step = max(step, loading / 4) if self.device.type == "cuda" else step + loading
        return StepTimes(step * full / count, validation / count, features, full)

    def _typical(self, call: Callable[[], object], least: int, patience: float) -> float:
        """Return the lower median of several times; the first call also warms up kernels and memory."""
        times: list[float] = []
        while len(times) < least or (len(times) < SAMPLES and sum(times) <= patience):
            times.append(self._timed(call))
        return statistics.median_low(times)

    def _timed(self, call: Callable[[], object]) -> float:
        synchronize(self.device)
        started = self.clock()
        call()
        synchronize(self.device)
        return self.clock() - started

    def _precision(self) -> torch.autocast:
        dtype = AUTOCAST.get(self.settings.precision)
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    @torch.no_grad()
    def _features(self, images: Tensor) -> list[Tensor]:
        self.model.eval()
        with self._precision():
            return [level.float() for level in self.model.features(images)]

    def _step(self, inputs: Tensor | list[Tensor], targets: Tensor) -> None:
        self.optimizer.zero_grad()
        with self._precision():
            loss = self.task.loss(compute_logits(self.model, inputs, targets), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def _validate(self, inputs: Tensor | list[Tensor], targets: Tensor) -> None:
        with self._precision():
            logits = compute_logits(self.model, inputs, targets)
        metric = self.task.metrics()
        for maps, target in zip(self.task.activation(logits.float()), targets, strict=True):
            metric.update(maps, target)


@torch.no_grad()
def measure_prediction(model: DenseModel, image: Tensor, device: str, clock: Clock) -> float:
    """Return the seconds of a forward pass of one image ``(1, C, H, W)`` at its full size.

    The mode of the model is restored, and the model ends on the CPU. If the image does not fit into GPU memory, the CPU
    computes it, as after the training.
    """
    was_training = model.training
    model.eval().to(device)
    try:
        if device == "cuda":
            model(image.to(device))  # the first pass warms up kernels
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
        full_size: reading the image and scoring one map at the size of its target.
        stored_size: scoring one map at the size of the stored predictions.
        image: one of the validation images ``(1, C, H, W)``.
    """

    full_size: float
    stored_size: float
    image: Tensor


def measure_scoring(task: Task, data: FolderData, map_size: Size, clock: Clock) -> ScoringTimes:
    """Measure the mean scoring time of up to ``SCORED`` validation images.

    Args:
        map_size: (h, w) of stored predictions.
    """
    indices = range(min(SCORED, len(data.val)))
    density = task.target_kind == "density"
    metric, stored_metric, stored_seconds, images = task.metrics(), task.metrics(), 0.0, []
    started = clock()
    for image, target, points in images_with_targets(data, "val", indices):
        maps = torch.full((1, task.out_channels, *image.shape[-2:]), 1 / task.out_channels)
        metric.update(resize_maps(maps, size_of(target), density)[0], target, points)
        stored_started = clock()
        small = resize_target(target, map_size, task.target_kind)
        stored_metric.update(resize_maps(maps, map_size, density)[0], small)
        stored_seconds += clock() - stored_started
        images.append(image)
    full_seconds = clock() - started - stored_seconds
    return ScoringTimes(full_seconds / len(indices), stored_seconds / len(indices), images[0])
