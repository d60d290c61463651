"""Baseline filter: selects among candidates that beat predictions without any training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.evaluation.scores import Scores
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure, statistics
from densemble.selection.held_out_predictions import HeldOut
from densemble.shapes import Array, Size
from densemble.storage.arrays import write_npy
from densemble.storage.runs import RunFolder
from densemble.tasks import Task
from densemble.tasks.baseline import BASELINES, baseline_names, mean_map

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaselineFilter:
    """Statistics of candidates and baselines for the task's primary metric, on the kept maps.

    Attributes:
        names: names of the M candidates.
        candidates: statistics ``(M, N, S)`` of the candidates.
        baselines: statistics ``(B, N, S)`` of the baselines; B may be 0.
        rows: position of each image in the second dimension, by index of the image.
        objective: the task's primary metric.
    """

    names: tuple[str, ...]
    candidates: Tensor
    baselines: Tensor
    rows: dict[int, int]
    objective: Objective

    def eligible(self, images: Sequence[int]) -> list[str]:
        """Return the candidates that beat every baseline on these images; all candidates if none does.

        A network that learned nothing predicts even probabilities. In a mean it makes the other members less certain
        and does not change the labels, so that mIoU does not detect it.
        """
        rows = [self.rows[image] for image in images]
        threshold = max(self.objective.signed(self.baselines[:, rows].sum(1)).tolist(), default=-torch.inf)
        scores = self.objective.signed(self.candidates[:, rows].sum(1)).tolist()
        better = [name for name, score in zip(self.names, scores, strict=True) if score > threshold]
        return better or list(self.names)


def baseline_filter(kept: HeldOut, baselines: Sequence[Tensor]) -> BaselineFilter:
    """Make the filter of untempered candidates and constant baseline maps ``(K, h, w)``."""
    objective = kept.task.objective()
    candidates = statistics(kept, torch.eye(len(kept.names)), objective)
    measured = [
        torch.cat([measure(maps[None], kept.targets[image], kept.task, objective) for image in kept.images])
        for maps in baselines
    ]
    stacked = torch.stack(measured) if measured else candidates.new_zeros(0, len(kept), candidates.shape[-1])
    rows = {image: row for row, image in enumerate(kept.images)}
    return BaselineFilter(kept.names, candidates, stacked, rows, objective)


def baseline_maps(run: RunFolder, data: FolderData, size: Size) -> list[Tensor]:
    """Return the map ``(K, h, w)`` that each baseline predicts for every image, computed from the training targets.

    The mean map is cached in the run folder, because reading all training targets takes long.
    """
    task = data.task
    mean = _kept_mean(run.mean_map, (task.out_channels, *size))
    if mean is None:
        targets = (
            resize_target(torch.from_numpy(np.ascontiguousarray(data.read_target(sample))), size, data.kind)
            for sample in data.train
        )
        mean = mean_map(task, targets, size)
        write_npy(run.mean_map, mean.numpy())
    return [BASELINES[name].predict(mean) for name in baseline_names(task)]


def warn_about_baselines(task: Task, baselines: Mapping[str, Scores], scores: Scores) -> None:
    """Warn if a baseline without training scores as well as the ensemble."""
    name, sign = task.primary, 1.0 if task.higher_is_better else -1.0
    score = scores.get(name)
    for baseline, baseline_scores in baselines.items():
        reference = baseline_scores.get(name)
        if reference is not None and score is not None and sign * score <= sign * reference:
            log.warning(
                f"warning: {name} {score:.4f} is no better than the baseline '{baseline}' ({reference:.4f}), "
                "which needs no training: train longer, start from pretrained weights, or look at the data"
            )


def _kept_mean(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """Read the kept mean map; ``None`` if it is absent, or damaged, which is logged."""
    if not path.is_file():
        return None
    try:
        mean: Array = np.load(path, allow_pickle=False)
        if mean.shape != shape or mean.dtype.kind != "f" or not np.isfinite(mean).all():
            raise ValueError(f"{mean.dtype} {mean.shape}")
    except (OSError, ValueError, EOFError) as error:
        log.warning(f"warning: '{path}' is damaged ({error}); the mean of the training targets is computed again")
        return None
    return torch.from_numpy(mean).float()
