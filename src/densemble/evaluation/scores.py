"""Scores on a split, computed image by image; only the running metrics are kept in memory."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.data.decoded_cache import DecodedSplit
from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.data.torch_dataset import TorchData, store_dataset
from densemble.data.trained_options import trained_options
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.membership import UnusableMaps, per_image
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps, resize_to_target
from densemble.errors import ArtifactError
from densemble.evaluation.trust import Trust, reliability_table
from densemble.metrics import Metric
from densemble.nets.modes import eval_mode
from densemble.progress.phases import track
from densemble.shapes import Array, Size, size_of
from densemble.storage.images import as_unit
from densemble.storage.writing import scratch_folder
from densemble.tasks import Task
from densemble.tasks.baseline import BASELINES, baseline_names, mean_map

Scores = dict[str, Any]
Target = tuple[Tensor, Tensor | None]
"""A target of any size in the form of its task, and fixations bool ``(H, W)`` if there are any."""
Watch = Callable[["ScoredPrediction"], None]
"""Called with the prediction of every image."""
ImageWithTarget = tuple[Tensor, Tensor, Tensor | None]
"""Image ``(1, C, H, W)`` in [0, 1], target and fixations."""
BATCH, BATCH_PIXELS = 8, 2_000_000


def as_target(target: Array, points: Array | None) -> Target:
    """Convert a target and fixations from arrays to tensors."""
    return torch.from_numpy(np.ascontiguousarray(target)), None if points is None else torch.from_numpy(points)


def default_split(data: FolderData) -> str:
    """Return ``test`` if the data has such a split, else ``val``."""
    return "test" if data.layout.splits.get("test") else "val"


def update_metric(metric: Metric, task: Task, maps: Tensor, target: Tensor, points: Tensor | None = None) -> None:
    """Add one image to a metric; its map ``(1, K, h, w)`` is resized (bilinear) to the size of the target."""
    metric.update(resize_to_target(maps.float(), target, task)[0], target, points)


@dataclass(frozen=True)
class ScoredPrediction:
    """One image of an evaluation with its prediction.

    Attributes:
        index: index of the image in the split.
        name: name of the image.
        image: ``(1, C, H, W)`` in [0, 1].
        target: target and fixations.
        prediction: prediction of the ensemble, a batch of one.
        members: maps ``(1, K, h, w)`` of the members that predicted the image.
        whole: metrics of the ensemble, with this image.
        single: metrics of each member, with this image.
    """

    index: int
    name: str
    image: Tensor
    target: Target
    prediction: Prediction
    members: Mapping[str, Tensor]
    whole: "EnsembleMetrics"
    single: Mapping[str, Metric]


class EnsembleMetrics:
    """Metrics of an ensemble and checks of its uncertainty and guarantee, updated image by image.

    Args:
        task: meaning of the maps.
        guarantee: guarantee of the predictions.
    """

    def __init__(self, task: Task, guarantee: Guarantee | None = None) -> None:
        self._task = task
        self.metric, self.trust = task.metrics(), Trust(task, guarantee)

    def update(self, prediction: Prediction, target: Tensor, points: Tensor | None) -> None:
        """Add the prediction of one image, a batch of one."""
        update_metric(self.metric, self._task, prediction.mean, target, points)
        self.trust.update(prediction, target)

    def compute(self) -> Scores:
        """Return every metric, the values of :class:`Trust`, and ``reliability`` (bins of confidence) if defined."""
        table = reliability_table(self.metric)
        return {**self.metric.compute(), **self.trust.compute(), **({} if table is None else {"reliability": table})}


def images_with_targets(
    data: FolderData, split: str, indices: Sequence[int] | None = None
) -> Iterator[ImageWithTarget]:
    """Yield image ``(1, C, H, W)`` in [0, 1], target and fixations of a split, or of its images at ``indices``."""
    samples = data.split(split)
    for sample in samples if indices is None else [samples[index] for index in indices]:
        image, target = data.read_pair(sample)
        pixels = torch.from_numpy(np.ascontiguousarray(as_unit(image, data.reading.options["image_range"])))
        yield pixels.permute(2, 0, 1)[None], *as_target(target, data.read_points(sample))


def evaluate(
    ensemble: Ensemble,
    data: FolderData | TorchData,
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
) -> Scores:
    """Score an ensemble and each of its members; :func:`densemble.scoring.evaluate` describes arguments and result.

    Args:
        ensemble, data, split, progress: see there.
        watch: called with the prediction of every image; only then are the maps of its members kept in memory.
    """
    if isinstance(data, FolderData):
        return _evaluate_folder(ensemble, data, split, progress, watch)
    with scratch_folder() as folder:
        splits = data if isinstance(data, Mapping) else {"test": data}
        stored = store_dataset(splits, folder, ensemble.task.name, **trained_options(ensemble))
        return _evaluate_folder(ensemble, stored, split, progress, watch)


@torch.no_grad()
def _evaluate_folder(
    ensemble: Ensemble,
    data: FolderData,
    split: str | None,
    progress: Callable[[int, int], None] | None,
    watch: Watch | None,
) -> Scores:
    data, split = data.numbered_as(ensemble.task), split or default_split(data)
    samples, task = data.split(split), ensemble.task
    examples = track(images_with_targets(data, split), "evaluating", len(samples), "images")
    whole, single = EnsembleMetrics(task, ensemble.guarantee), {name: task.metrics() for name in ensemble.members}
    device = next(ensemble.parameters()).device
    without: list[dict[str, Any]] = []
    with eval_mode(ensemble):
        for done, (sample, (images, target, points)) in enumerate(zip(samples, examples, strict=True)):
            maps: dict[str, Tensor] | None = None if watch is None else {}
            prediction = _scored(ensemble, str(sample.image), images.to(device), single, (target, points), maps)
            without += [{"image": str(sample.image), "members": dict(members)} for members in prediction.left_out or ()]
            whole.update(prediction, target, points)
            if watch is not None and maps is not None:
                watch(ScoredPrediction(done, sample.stem, images, (target, points), prediction, maps, whole, single))
            if progress is not None:
                progress(done + 1, len(samples))
    members = {name: metric.compute() for name, metric in single.items()}
    scores = {"task": task.name, "split": split, "images": len(samples), **whole.compute()}
    return {**scores, "members": members, **({"without": without} if without else {})}


def _scored(
    ensemble: Ensemble,
    file: str,
    images: Tensor,
    single: Mapping[str, Metric],
    target: Target,
    kept: dict[str, Tensor] | None,
) -> Prediction:
    """Predict one image; the map of each member is scored before the ensemble combines it, and added to ``kept``."""
    size: Size = size_of(target[0])
    scored: set[str] = set()

    def scored_maps(usable: Ensemble) -> Iterator[tuple[str, Tensor]]:
        if kept is not None:
            kept.clear()
        for name, maps in usable.member_maps(images):
            if name not in scored:  # an earlier attempt scored it and failed at another member
                update_metric(single[name], ensemble.task, maps, *target)
                scored.add(name)
            if kept is not None:
                kept[name] = maps
            yield name, maps

    def predict(usable: Ensemble, _: Tensor) -> Prediction:
        return usable.combination.predict(scored_maps(usable), size=size)

    def warn(error: UnusableMaps) -> None:
        warnings.warn(f"'{file}': {error.told}: left out of this prediction", stacklevel=4)

    try:
        (part,) = per_image(ensemble, images, predict, warn)
    except UnusableMaps as error:
        raise ArtifactError(f"'{file}': {error.told}") from error
    return part.result


@torch.no_grad()
def predict_split(
    model: torch.nn.Module, task: Task, data: FolderData, split: str, map_size: Size
) -> tuple[np.ndarray[Any, Any], Scores]:
    """Predict a split with one member.

    Args:
        model: member that returns logits.
        task: meaning of the maps.
        data: images and targets.
        split: name of the split.
        map_size: (h, w) of the returned maps.

    Returns:
        Activated maps ``(N, K, h, w)`` and scores at the size of the targets. Maps of values and densities are float32,
        because float16 ends at 65504 and loses digits below 6e-5. All other maps lie in [0, 1] and are float16.
    """
    metric = task.metrics()
    density = task.target_kind == "density"
    dtype = np.float32 if density or task.target_kind == "values" else np.float16
    resized = np.empty((len(data.split(split)), task.out_channels, *map_size), dtype=dtype)
    device = next(model.parameters()).device
    index = 0
    examples = track(images_with_targets(data, split), "predicting", len(data.split(split)), "images")
    for batch in equal_size_batches(examples):
        images = torch.cat([images for images, _, _ in batch])
        maps = task.activation(model(images.to(device)).float())
        small_maps = resize_maps(maps, map_size, density, antialias=True)
        for full, small, (_, target, points) in zip(maps, small_maps, batch, strict=True):
            update_metric(metric, task, full[None], target, points)
            resized[index] = small.cpu().numpy()
            index += 1
    return resized, metric.compute()


def equal_size_batches(samples: Iterable[ImageWithTarget]) -> Iterator[list[ImageWithTarget]]:
    """Group consecutive images of equal size into batches; larger batches are faster only for small images."""
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
    """Score predictions that need no training on the validation images, by name of the baseline."""
    targets = (
        resize_target(torch.from_numpy(np.array(target)), target_size, task.target_kind) for target in train.targets
    )
    mean = mean_map(task, targets, target_size)
    scores = {}
    for name in baseline_names(task):
        maps = BASELINES[name].predict(mean)
        metric = task.metrics()
        examples = track(images_with_targets(data, "val"), f"scoring the {name}", len(data.val), "images")
        for _, target, points in examples:
            update_metric(metric, task, maps[None], target, points)
        scores[name] = metric.compute()
    return scores
