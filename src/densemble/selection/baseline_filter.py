"""Candidates that beat predictions without any training, on the images that are fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure, statistics
from densemble.selection.held_out_predictions import HeldOut
from densemble.shapes import Size
from densemble.storage.runs import RunFolder
from densemble.tasks.baseline import BASELINES, baseline_names, mean_map


@dataclass(frozen=True)
class BaselineFilter:
    """Statistics of candidates and baselines by the task's own metric, on the kept maps.

    Attributes:
        names: of the M candidates.
        candidates: ``(M, N, S)``.
        baselines: ``(B, N, S)``; B may be 0.
        place: row of each image by its number.
        objective: the task's own metric.
    """

    names: tuple[str, ...]
    candidates: Tensor
    baselines: Tensor
    place: dict[int, int]
    objective: Objective

    def able(self, images: Sequence[int]) -> list[str]:
        """Names of the candidates that beat every baseline on these images; all of them where none does.

        A network that learned nothing gives even probabilities: in a mean it hides how sure the others are, and labels,
        which are all that mIoU sees, do not change.
        """
        rows = [self.place[image] for image in images]
        least = max(self.objective.signed(self.baselines[:, rows].sum(1)).tolist(), default=-torch.inf)
        scores = self.objective.signed(self.candidates[:, rows].sum(1)).tolist()
        found = [name for name, score in zip(self.names, scores, strict=True) if score > least]
        return found or list(self.names)


def baseline_filter(kept: HeldOut, maps: Sequence[Tensor]) -> BaselineFilter:
    """The filter of untempered candidates against constant maps ``(K, h, w)``."""
    objective = kept.task.objective()
    every = statistics(kept, torch.eye(len(kept.names)), objective)
    rows = [
        torch.cat([measure(own[None], kept.targets[image], kept.task, objective) for image in kept.images])
        for own in maps
    ]
    width = every.shape[-1]
    baselines = torch.stack(rows) if rows else every.new_zeros(0, len(kept), width)
    place = {image: row for row, image in enumerate(kept.images)}
    return BaselineFilter(kept.names, every, baselines, place, objective)


def baseline_maps(run: RunFolder, data: FolderData, size: Size) -> list[Tensor]:
    """The map that each baseline predicts for every image, ``(K, h, w)``, from the training targets.

    The mean map is kept in the run, for reading all training targets takes long.
    """
    task = data.task
    if run.mean_map.is_file():
        mean = torch.from_numpy(np.load(run.mean_map, allow_pickle=False)).float()
    else:
        targets = (
            resize_target(torch.from_numpy(np.ascontiguousarray(data.read_target(sample))), size, data.kind)
            for sample in data.train
        )
        mean = mean_map(task, targets, size)
        np.save(run.mean_map, mean.numpy())
    return [BASELINES[name].predict(mean) for name in baseline_names(task)]
