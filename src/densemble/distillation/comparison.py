"""Compare the student with the ensemble, its best member, and the same network trained on the targets alone."""

import logging
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.placement import on_device
from densemble.evaluation.bootstrap import LEVEL, bootstrap, bootstrap_gain, resample
from densemble.evaluation.scores import images_with_targets, update_metric
from densemble.inference.predict import prepared
from densemble.metrics import Objective
from densemble.nets.modes import eval_mode
from densemble.selection.candidate_scores import measure
from densemble.selection.timing import measure as measure_seconds

log = logging.getLogger(__name__)
STUDENT, LABELS, BEST, WHOLE = "student", "labels alone", "best member", "ensemble"


def best_member(ensemble: Ensemble) -> tuple[str, Ensemble]:
    """Return the member with the best stored score, with its temperature, as an ensemble of one.

    Without stored scores, the member with the largest weight.
    """
    task, stored = ensemble.task, ensemble.metrics.get("members", {})
    sign = 1 if task.higher_is_better else -1
    scores = {name: stored.get(name, {}).get(task.primary) for name in ensemble.members}
    known = {name: sign * score for name, score in scores.items() if score is not None}
    ranked = known if len(known) == len(scores) else ensemble.weights
    name = max(ranked, key=lambda member: ranked[member])
    member = dict(ensemble.named_members())[name]
    temperatures = {name: ensemble.temperatures[name]}
    return name, Ensemble({name: member}, task=task, temperatures=temperatures, reading=ensemble.reading).eval()


def compare(models: Mapping[str, Ensemble], data: FolderData, split: str, seed: int = 0) -> dict[str, Any]:
    """Score and time models on the same images of a split.

    Args:
        models: models of one task by name; ``STUDENT`` and ``WHOLE`` are required.
        data: images and targets.
        split: name of the split.
        seed: seed of the intervals.

    Returns:
        ``models``: for each model, all metrics, the ``score`` with its interval, ``parameters`` and ``milliseconds``;
        ``gains`` and ``share_kept`` with intervals; ``times_as_fast`` against the ensemble.
    """
    objective = models[WHOLE].task.objective()
    scores, rows = _score(models, data, split, objective)
    milliseconds = _time(models, data, split)
    values: dict[str, Any] = {
        name: {
            "score": bootstrap(rows[name], objective, seed=seed)._asdict(),
            **scores[name],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "milliseconds": round(milliseconds[name], 3),
        }
        for name, model in models.items()
    }
    references = [name for name in (LABELS, BEST) if name in models]
    gains = {
        f"{new} over {old}": bootstrap_gain(rows[new], rows[old], objective, seed=seed)._asdict()
        for old in references
        for new in (STUDENT, WHOLE)
    }
    kept = {f"over {old}": _share_kept(rows, old, objective, seed) for old in references}
    fast = {name: round(milliseconds[WHOLE] / milliseconds[name], 3) for name in models}
    return {
        "metric": objective.name, "split": split, "images": len(data.split(split)), "threads": torch.get_num_threads(),
        "models": values, "gains": gains, "share_kept": kept, "times_as_fast": fast,
    }  # fmt: skip


@torch.no_grad()
def _score(
    models: Mapping[str, Ensemble], data: FolderData, split: str, objective: Objective
) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Return all metrics of each model, and the statistics of each image for the objective, ``(N, S)``."""
    task = models[WHOLE].task
    metrics = {name: task.metrics() for name in models}
    rows: dict[str, list[Tensor]] = {name: [] for name in models}
    for image, target, points in images_with_targets(data, split):
        for name, model in models.items():
            with eval_mode(model):
                maps = model(image.to(next(model.parameters()).device)).float().cpu()
            update_metric(metrics[name], task, maps, target, points)
            rows[name].append(measure(maps, (target, points), task, objective))
    return {name: metric.compute() for name, metric in metrics.items()}, {k: torch.cat(v) for k, v in rows.items()}


def _time(models: Mapping[str, Ensemble], data: FolderData, split: str) -> dict[str, float]:
    """Return the median milliseconds for the first image at its full size: eager, float32, interleaved."""
    image, _, _ = next(images_with_targets(data, split, [0]))

    def call(model: Ensemble) -> Callable[[], Tensor]:
        fast = prepared(on_device(model, "cpu"))

        def run() -> Tensor:
            with torch.no_grad():
                maps: Tensor = fast(image.clone())  # values cached for an earlier tensor are not reused
            return maps

        return run

    samples = measure_seconds({name: call(model) for name, model in models.items()})
    return {name: statistics.median(seconds) * 1000 for name, seconds in samples.items()}


def _share_kept(rows: Mapping[str, Tensor], old: str, objective: Objective, seed: int) -> dict[str, float | None]:
    """Return (student - old) / (ensemble - old) with its interval over resampled images.

    It is ``None`` if the ensemble is no better than ``old``; the interval, if that happens in some resamples.
    """
    counts = resample(len(rows[old]), seed=seed)

    def value(name: str, weights: Tensor) -> Tensor:
        return objective.value(weights @ rows[name])

    def parts(weights: Tensor) -> tuple[Tensor, Tensor]:
        base = value(old, weights)
        sign = 1 if objective.higher_is_better else -1
        return sign * (value(STUDENT, weights) - base), sign * (value(WHOLE, weights) - base)

    gain, whole = parts(torch.ones(1, len(rows[old]), dtype=torch.float64))
    if not bool(whole > 0):
        return {"value": None, "low": None, "high": None}
    gains, wholes = parts(counts)
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = torch.quantile(gains / wholes, ends).tolist() if bool((wholes > 0).all()) else (None, None)
    return {"value": float(gain / whole), "low": low, "high": high}
