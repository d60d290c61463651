"""Scores on a split, image by image: nothing is kept but the running metrics."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.data.decoded_cache import DecodedSplit
from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.membership import UnusableMaps, per_image
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.errors import ArtifactError
from densemble.evaluation.trust import Trust, reliability_table
from densemble.metrics import Metric
from densemble.nets.modes import eval_mode
from densemble.shapes import Array, Size, size_of
from densemble.storage.images import as_unit
from densemble.tasks import Task
from densemble.tasks.baseline import BASELINES, baseline_names, mean_map

Scores = dict[str, Any]
Target = tuple[Tensor, Tensor | None]
"""A target of any size in the form of its task, and fixations bool ``(H, W)`` where there are some."""
BATCH, BATCH_PIXELS = 8, 2_000_000


def as_target(target: Array, points: Array | None) -> Target:
    """A target and fixations as they are read from files."""
    return torch.from_numpy(np.ascontiguousarray(target)), None if points is None else torch.from_numpy(points)


def default_split(data: FolderData) -> str:
    """``test`` where there is one, else ``val``."""
    return "test" if data.layout.splits.get("test") else "val"


def _score(metric: Metric, task: Task, maps: Tensor, target: Tensor, points: Tensor | None) -> None:
    """Adds one image's map ``(1, K, h, w)``, resized (bilinear) to the target's own size."""
    size: Size = size_of(target)
    maps = resize_maps(maps.float(), size, task.target_kind == "density")
    metric.update(maps[0], target, points)


class EnsembleMetrics:
    """Metrics of an ensemble and whether its uncertainty and guarantee hold, over images that come one by one.

    Args:
        task: what the maps mean.
        guarantee: of the predictions.
    """

    def __init__(self, task: Task, guarantee: Guarantee | None = None) -> None:
        self._task = task
        self.metric, self.trust = task.metrics(), Trust(task, guarantee)

    def update(self, prediction: Prediction, target: Tensor, points: Tensor | None) -> None:
        """Adds the prediction of one image, a batch of one."""
        _score(self.metric, self._task, prediction.mean, target, points)
        self.trust.update(prediction, target)

    def compute(self) -> Scores:
        """Every metric, what :class:`Trust` tells, and ``reliability`` (bins of confidence) where the task has it."""
        table = reliability_table(self.metric)
        return {**self.metric.compute(), **self.trust.compute(), **({} if table is None else {"reliability": table})}


ImageWithTarget = tuple[Tensor, Tensor, Tensor | None]


def images_with_targets(
    data: FolderData, split: str, numbers: Sequence[int] | None = None
) -> Iterator[ImageWithTarget]:
    """Image ``(1, C, H, W)`` in [0, 1], target and fixations of a split, or of some of its images, one by one."""
    samples = data.split(split)
    for sample in samples if numbers is None else [samples[number] for number in numbers]:
        image, target = data.read_pair(sample)
        pixels = torch.from_numpy(np.ascontiguousarray(as_unit(image, data.reading.options["image_range"])))
        yield pixels.permute(2, 0, 1)[None], *as_target(target, data.read_points(sample))


@torch.no_grad()
def evaluate(
    ensemble: Ensemble, data: FolderData, split: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Scores:
    """Scores of an ensemble and of each of its members, at the maps' own size.

    Args:
        ensemble: runs in eval mode and is left in the mode that it is in.
        data: images and maps for the same task; classes are matched by name.
        split: ``train``, ``val`` or ``test``; default ``test`` where there is one, else ``val``.
        progress: called with (done, all) after every image.

    Returns:
        ``{"task", "split", "images", METRIC: value..., "members": {name: {METRIC: value...}}}``; and as far as the task
        has them ``reliability`` (bins of confidence), ``risk_coverage``, ``interval_coverage`` of values, and
        ``guarantee`` with what it held; ``without``: images that some members gave no usable map of.

    Raises:
        ArtifactError: a member gives no usable map of an image, which is named, and cannot be done without.
        DataError: no such split, files that cannot be used, or other classes than the ensemble's.
    """
    data, split = data.numbered_as(ensemble.task), split or default_split(data)
    samples, examples, task = data.split(split), images_with_targets(data, split), ensemble.task
    whole, single = EnsembleMetrics(task, ensemble.guarantee), {name: task.metrics() for name in ensemble.members}
    device = next(ensemble.parameters()).device
    without: list[dict[str, Any]] = []
    with eval_mode(ensemble):
        for done, (sample, (images, target, points)) in enumerate(zip(samples, examples, strict=True)):
            prediction = _scored(ensemble, str(sample.image), images.to(device), single, target, points)
            without += [{"image": str(sample.image), "members": dict(members)} for members in prediction.left_out or ()]
            whole.update(prediction, target, points)
            if progress is not None:
                progress(done + 1, len(samples))
    members = {name: metric.compute() for name, metric in single.items()}
    scores = {"task": task.name, "split": split, "images": len(samples), **whole.compute()}
    return {**scores, "members": members, **({"without": without} if without else {})}


def _scored(
    ensemble: Ensemble, file: str, images: Tensor, single: Mapping[str, Metric], target: Tensor, points: Tensor | None
) -> Prediction:
    """The prediction of one image; the members' maps are scored on their way into the ensemble."""
    size: Size = size_of(target)
    scored: set[str] = set()

    def scoring(able: Ensemble) -> Iterator[tuple[str, Tensor]]:
        for name, maps in able.member_maps(images):
            if name not in scored:  # by a run that ended at another member
                _score(single[name], ensemble.task, maps, target, points)
                scored.add(name)
            yield name, maps

    def told(error: UnusableMaps) -> None:
        warnings.warn(f"'{file}': {error.told}: left out of this prediction", stacklevel=4)

    try:
        (part,) = per_image(ensemble, images, lambda able, _: able.combination.predict(scoring(able), size=size), told)
    except UnusableMaps as error:
        raise ArtifactError(f"'{file}': {error.told}") from error
    return part.result


@torch.no_grad()
def predict_split(
    model: torch.nn.Module, task: Task, data: FolderData, split: str, map_size: Size
) -> tuple[np.ndarray[Any, Any], Scores]:
    """One member's activated maps on a split, ``(N, K, h, w)``, and its scores at the maps' own size.

    Values and densities are float32: float16 ends at 65504, and below 6e-5 it loses digits. All other maps lie in
    [0, 1] and are float16.
    """
    metric = task.metrics()
    kept_type = np.float32 if task.target_kind in ("values", "density") else np.float16
    kept = np.empty((len(data.split(split)), task.out_channels, *map_size), dtype=kept_type)
    device = next(model.parameters()).device
    density = task.target_kind == "density"
    number = 0
    for batch in alike(images_with_targets(data, split)):
        images = torch.cat([images for images, _, _ in batch])
        maps = task.activation(model(images.to(device)).float())
        small = resize_maps(maps, map_size, density, antialias=True)
        for one, own, (_, target, points) in zip(maps, small, batch, strict=True):
            _score(metric, task, one[None], target, points)
            kept[number] = own.cpu().numpy()
            number += 1
    return kept, metric.compute()


def alike(samples: Iterable[ImageWithTarget]) -> Iterator[list[ImageWithTarget]]:
    """Neighbours of equal image size together, as many as are worth a batch: small images pay little each then."""
    batch: list[ImageWithTarget] = []
    for sample in samples:
        pixels = sample[0].shape[-1] * sample[0].shape[-2]
        if batch and (sample[0].shape != batch[0][0].shape or len(batch) >= min(BATCH, BATCH_PIXELS // pixels)):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def score_baselines(task: Task, data: FolderData, train: DecodedSplit, target_size: Size) -> dict[str, Scores]:
    """Scores on the validation images of predictions that need no training, by the name of the baseline."""
    targets = (
        resize_target(torch.from_numpy(np.array(target)), target_size, task.target_kind) for target in train.targets
    )
    mean = mean_map(task, targets, target_size)
    found = {}
    for name in baseline_names(task):
        maps = BASELINES[name].predict(mean)
        metric = task.metrics()
        for _, target, points in images_with_targets(data, "val"):
            _score(metric, task, maps[None], target, points)
        found[name] = metric.compute()
    return found
