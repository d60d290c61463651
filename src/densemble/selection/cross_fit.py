"""Cross-fitting: every image is measured by an ensemble that was made, from first to last step, without its fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE, rules_for
from densemble.ensemble.prediction import Prediction
from densemble.evaluation.scores import EnsembleMetrics, Target
from densemble.evaluation.trust import TRUSTED
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure
from densemble.selection.choose import combined_statistics, fit_rule, further_objectives
from densemble.selection.folds import Split
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.recipe import Fitted, Fitting, Recipe
from densemble.shapes import size_of

STRATEGIES = ("greedy", "best", "all")
"""Ways of selecting that every ensemble is compared with."""


@dataclass(frozen=True)
class ImageResult:
    """One image: number, score of the ensemble on it alone, and mean disagreement of the members.

    The disagreement is the mean over the pixels of the mutual information in nats or, for values, of the standard
    deviation over the members in the target's unit.
    """

    image: int
    score: float
    disagreement: float


@dataclass
class CrossFit:
    """What was measured on images that played no part in any fit of the ensemble they were measured with.

    Attributes:
        objective: metric that is selected by.
        rows: statistics ``(N, S)`` by name: ``ensemble``, as it would be saved; ``uncalibrated``, the same without its
            calibration; ``best member``, the best single one, uncalibrated; and each strategy, made in full.
        weights: one per candidate for each fold, by way of selecting.
        without: statistics of the ensemble without a member, by its name, where the rule permits that.
        rules: statistics of each rule for the members that were selected, uncalibrated, and sums of further metrics.
        calibrated, plain: the ensemble as served, and without temperatures and calibration.
        images: of each image, in the order of the rows.
    """

    objective: Objective
    rows: dict[str, list[Tensor]] = field(default_factory=dict)
    weights: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    without: dict[str, list[Tensor]] = field(default_factory=dict)
    rules: dict[str, list[list[Tensor]]] = field(default_factory=dict)
    calibrated: EnsembleMetrics | None = None
    plain: EnsembleMetrics | None = None
    images: list[ImageResult] = field(default_factory=list)

    def of(self, name: str) -> Tensor:
        """Statistics by name, ``(N, S)``."""
        return torch.cat(self.rows[name])


def cross_fit(recipe: Recipe, folds: Sequence[Split], report: Callable[[str], None]) -> CrossFit:
    """Repeats the whole recipe for every fold on the other folds, and measures on the fold.

    Args:
        recipe: of the ensemble that is to be saved.
        folds: see :func:`folds_of`.
        report: called with one line of text per fold.

    Raises:
        DataError: the metric is undefined on the images of a fold's complement.
    """
    task = recipe.evidence.served.task
    found = CrossFit(recipe.objective)
    found.calibrated = EnsembleMetrics(task)
    found.plain = EnsembleMetrics(task) if task.target_kind in TRUSTED else None
    for number, (seen, unseen) in enumerate(folds):
        report(f"cross-fitting: fold {number + 1} of {len(folds)}")
        with recipe.on(seen) as fitting:
            fits = {name: fitting.ensemble(**changes) for name, changes in _strategies(recipe).items()}
            _compare_rules(found, fitting, fits[_own(recipe)], unseen)
        for name, fitted in fits.items():
            found.weights.setdefault(name, []).append(fitted.weights)
        held = recipe.evidence.served.only(unseen).tempered(fitting.sampled.temperatures)
        _measure(found, fits, fits[_own(recipe)], held)
    return found


def _own(recipe: Recipe) -> str:
    """Name of the asked way of selecting."""
    return recipe.options.select


def _strategies(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Changes to the options by way of selecting; the asked one has none."""
    other = {"weights": None, "budget": None}
    found: dict[str, dict[str, Any]] = {name: {"select": name, **other} for name in STRATEGIES}
    found["best"]["combine"] = "mean"
    return {**found, _own(recipe): {}}


# --- one fold -------------------------------------------------------------------------------------------------------


def _measure(found: CrossFit, fits: dict[str, Fitted], own: Fitted, held: HeldOut) -> None:
    places = {name: number for number, name in enumerate(held.names)}
    for image in held.images:
        maps, target = held.read(image), held.targets[image]

        def rows(name: str, joined: Tensor, target: Target = target) -> Tensor:
            own = measure(joined, target, held.task, found.objective)
            found.rows.setdefault(name, []).append(own)
            return own

        def chosen(fitted: Fitted, maps: Tensor = maps) -> Tensor:
            return maps[[places[name] for name in fitted.held.names], None]

        for name, fitted in fits.items():
            rows(name, fitted.combination.combine(chosen(fitted)))
        best, mine = fits["best"], chosen(own)
        rows("best member", replace(best.combination, calibration=None).combine(chosen(best)))
        rows("uncalibrated", replace(own.combination, calibration=None).combine(mine))
        row = rows("ensemble", own.combination.combine(mine))
        _leave_one_out(found, own.combination, mine, target, row, held.names)
        _predict(found, own, mine, target, image, float(found.objective.value(row[0])))


def _leave_one_out(
    found: CrossFit, combination: Combination, maps: Tensor, target: Target, whole: Tensor, names: Sequence[str]
) -> None:
    """Without each member; a candidate that is not in the ensemble changes nothing."""
    if COMBINE[combination.rule].needs_all or len(maps) < 2:
        return
    for name in names:
        row = whole
        if name in combination.weights:
            others = [pair for pair in zip(combination.weights, maps, strict=True) if pair[0] != name]
            row = measure(combination.combine(others), target, combination.task, found.objective)
        found.without.setdefault(name, []).append(row)


def _predict(found: CrossFit, fitted: Fitted, maps: Tensor, target: Target, image: int, score: float) -> None:
    assert found.calibrated is not None
    size = size_of(target[0])
    prediction = fitted.combination.predict_at(maps, size)
    found.calibrated.update(prediction, *target)
    found.images.append(ImageResult(image, score, disagreement_of(prediction)))
    if found.plain is not None:
        raw = fitted.held.tempered((1.0,) * len(maps)).read(image)
        plain = replace(fitted.combination, calibration=None)
        found.plain.update(plain.predict_at(raw[:, None], size), *target)


def disagreement_of(prediction: Prediction) -> float:
    """Mean mutual information or, for values, mean standard deviation over the members."""
    information = prediction.mutual_information
    return float((prediction.spread().sqrt() if information is None else information).mean())


def _compare_rules(found: CrossFit, fitting: Fitting, own: Fitted, unseen: Sequence[int]) -> None:
    """Every rule, fitted on the fold's complement with the members selected there, on the fold's images.

    A fold in which a single member was selected is left out. Scored on the sampled pixels where metrics are sums over
    pixels, else on the kept small maps.
    """
    evidence, task, names = fitting.recipe.evidence, own.held.task, own.held.names
    if len(names) < 2:
        return
    plain, sampled = replace(own.combination, calibration=None), fitting.sampled.of(names)
    source = evidence.sampled if evidence.pixelwise else evidence.kept
    held = source.only(unseen).tempered(fitting.sampled.temperatures).of(names)
    wanted = [found.objective, *further_objectives(task)]
    for name in rules_for(task):
        rows = combined_statistics([(held, fit_rule(sampled, plain, name))], wanted)
        kept = found.rules.setdefault(name, [[] for _ in wanted])
        for all_rows, own_rows in zip(kept, rows, strict=True):
            all_rows.append(own_rows)
