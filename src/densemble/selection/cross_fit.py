"""Cross-fitting: every image is measured with an ensemble whose fit, including all steps, did not use its fold."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import rule_row, rules_for
from densemble.evaluation.class_results import class_counts, count_image
from densemble.evaluation.disagreement import disagreement_of
from densemble.evaluation.scores import EnsembleMetrics, Target
from densemble.evaluation.trust import TRUSTED
from densemble.metrics import Objective
from densemble.metrics.class_counts import ClassCounts
from densemble.progress.phases import track
from densemble.selection.candidate_scores import measure
from densemble.selection.choose import combined_statistics, fit_rule
from densemble.selection.folds import Split
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.recipe import Fitted, Fitting, Recipe
from densemble.shapes import size_of
from densemble.tasks import Task

STRATEGIES = ("greedy", "best", "all")
"""Selection strategies that every ensemble is compared with."""
PROBABILITY_METRICS = ("nll", "ece")
"""Metrics of probabilities that are reported for every rule."""


@dataclass(frozen=True)
class ImageResult:
    """Result of one image.

    Attributes:
        image: index of the image.
        score: score of the ensemble on this image alone.
        disagreement: mean disagreement of the members over the pixels: mutual information in nats or, for values, the
            standard deviation over the members in the unit of the target.
    """

    image: int
    score: float
    disagreement: float


@dataclass
class CrossFit:
    """Measurements on images that were not used in any fit of the measured ensemble.

    Attributes:
        objective: objective of the selection.
        calibrated, plain: metrics of the ensemble as it is saved, and without temperatures and calibration.
        best_member: name of the candidate with the best score on all images.
        rows: statistics ``(N, S)`` by name: ``ensemble``, as it is saved; ``uncalibrated``, the same without its
            calibration; ``best member``, :attr:`best_member` as it was trained; and each strategy with all steps.
        weights: one weight per candidate for each fold, by strategy.
        without: statistics of the ensemble without a member, by name of the member, if the rule permits that.
        rules: statistics of each rule for the selected members, uncalibrated, by rule and by name of the metric.
        images: result of each image, in the order of the rows.
        counts: target and predicted classes of the ensemble; ``None`` for a task without classes of pixels.
    """

    objective: Objective
    best_member: str
    calibrated: EnsembleMetrics
    plain: EnsembleMetrics | None
    rows: dict[str, list[Tensor]] = field(default_factory=dict)
    weights: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    without: dict[str, list[Tensor]] = field(default_factory=dict)
    rules: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    images: list[ImageResult] = field(default_factory=list)
    counts: ClassCounts | None = None

    def of(self, name: str) -> Tensor:
        """Return statistics by name, ``(N, S)``."""
        return torch.cat(self.rows[name])


def cross_fit(recipe: Recipe, folds: Sequence[Split]) -> CrossFit:
    """Repeat the whole recipe for every fold on the other folds, and measure on the fold.

    Args:
        recipe: recipe of the ensemble that is saved.
        folds: see :func:`folds_of`.

    Raises:
        DataError: the metric is undefined on the images of the other folds.
    """
    task = recipe.evidence.served.task
    requested = recipe.options.select
    plain = EnsembleMetrics(task) if task.target_kind in TRUSTED else None
    best = recipe.best_member()
    result = CrossFit(recipe.objective, best, EnsembleMetrics(task), plain, counts=class_counts(task))
    as_trained = recipe.evidence.served.of([best])
    for seen, unseen in track(folds, "folds", len(folds)):
        with recipe.on(seen) as fitting:
            fits = {name: fitting.ensemble(**changes) for name, changes in _strategies(requested).items()}
            _compare_rules(result, fitting, fits[requested], unseen)
        for name, fitted in fits.items():
            result.weights.setdefault(name, []).append(fitted.weights)
        held = recipe.evidence.served.only(unseen).tempered(fitting.sampled.temperatures)
        _measure(result, fits, requested, held, as_trained)
    return result


def _strategies(requested: str) -> dict[str, dict[str, Any]]:
    """Return the changes to the options for each strategy; the requested selection changes nothing."""
    changes: dict[str, dict[str, Any]] = {
        name: {"select": name, "weights": None, "budget": None} for name in STRATEGIES
    }
    changes["best"]["combine"] = "mean"
    return {**changes, requested: {}}


def further_objectives(task: Task) -> list[Objective]:
    """Return the objectives of probabilities that are reported for every rule."""
    return [task.objective(name) for name in PROBABILITY_METRICS if name in task.metrics().objectives]


# --- one fold -------------------------------------------------------------------------------------------------------


def _measure(result: CrossFit, fits: dict[str, Fitted], requested: str, held: HeldOut, best_member: HeldOut) -> None:
    """Measure the fits (by strategy) and the best member on the images of a fold.

    ``held`` contains the served maps of all candidates with their temperatures.
    """
    index_of = {name: index for index, name in enumerate(held.names)}
    ensemble = fits[requested]
    for image in held.images:
        maps, target = held.read(image), held.targets[image]
        stacks = {name: maps[[index_of[member] for member in fits[name].held.names], None] for name in fits}
        combined = {name: fitted.combination.combine(stacks[name]) for name, fitted in fits.items()}
        combined["ensemble"] = combined[requested]
        combined["best member"] = best_member.read(image)
        combined["uncalibrated"] = replace(ensemble.combination, calibration=None).combine(stacks[requested])
        rows = {name: measure(each, target, held.task, result.objective) for name, each in combined.items()}
        for name, row in rows.items():
            result.rows.setdefault(name, []).append(row)
        _leave_one_out(result, ensemble.combination, stacks[requested], target, rows["ensemble"], held.names)
        score = float(result.objective.value(rows["ensemble"][0]))
        _predict(result, ensemble, stacks[requested], target, image, score)


def _leave_one_out(
    result: CrossFit, combination: Combination, maps: Tensor, target: Target, whole: Tensor, names: Sequence[str]
) -> None:
    """Measure the ensemble without each member; leaving out any other candidate changes nothing."""
    if rule_row(combination.rule).needs_all or len(maps) < 2:
        return
    for name in names:
        row = whole
        if name in combination.weights:
            others = [pair for pair in zip(combination.weights, maps, strict=True) if pair[0] != name]
            row = measure(combination.combine(others), target, combination.task, result.objective)
        result.without.setdefault(name, []).append(row)


def _predict(result: CrossFit, fitted: Fitted, maps: Tensor, target: Target, image: int, score: float) -> None:
    size = size_of(target[0])
    prediction = fitted.combination.predict_at(maps, size)
    result.calibrated.update(prediction, *target)
    count_image(result.counts, fitted.held.task, prediction.mean, target[0])
    result.images.append(ImageResult(image, score, disagreement_of(prediction)))
    if result.plain is not None:
        raw = fitted.held.tempered((1.0,) * len(maps)).read(image)
        plain = replace(fitted.combination, calibration=None)
        result.plain.update(plain.predict_at(raw[:, None], size), *target)


def _compare_rules(result: CrossFit, fitting: Fitting, fitted: Fitted, unseen: Sequence[int]) -> None:
    """Fit every rule on the other folds for the members selected there, and measure it on the images of the fold.

    A fold with a single selected member is skipped. The measured maps are the sampled pixels if metrics are sums over
    pixels, else the kept small maps.
    """
    evidence, task, names = fitting.recipe.evidence, fitted.held.task, fitted.held.names
    if len(names) < 2:
        return
    plain, sampled = replace(fitted.combination, calibration=None), fitting.sampled.of(names)
    source = evidence.sampled if evidence.pixelwise else evidence.kept
    held = source.only(unseen).tempered(fitting.sampled.temperatures).of(names)
    objectives = {each.name: each for each in (result.objective, *further_objectives(task))}
    for name in rules_for(task):
        rows = combined_statistics([(held, fit_rule(sampled, plain, name))], list(objectives.values()))
        by_metric = result.rules.setdefault(name, {metric: [] for metric in objectives})
        for metric, metric_rows in zip(objectives, rows, strict=True):
            by_metric[metric].append(metric_rows)
