"""assemble: from the candidates of a run to one ensemble with its calibration, guarantee, cascade and report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.member_views import Viewed
from densemble.ensemble.resize import resize_maps, resize_to_target
from densemble.errors import DataError
from densemble.evaluation.scores import Scores, Target
from densemble.metrics import Objective
from densemble.metrics.segmentation import class_overlaps
from densemble.nets.dense import DenseModel
from densemble.report.run_page import write_report
from densemble.selection import analysis
from densemble.selection.baseline_filter import baseline_filter, baseline_maps
from densemble.selection.candidate_maps import gather, run_candidate, scratch_folder
from densemble.selection.candidate_scores import measure
from densemble.selection.choose import require_members
from densemble.selection.conformal import check_guarantee, fit_guarantee
from densemble.selection.cross_fit import CrossFit, ImageResult, cross_fit, disagreement_of
from densemble.selection.explain import report_strips
from densemble.selection.folds import alternating_halves, described, folds_of, groups_of
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.selection.held_out_targets import full_size_targets, small_targets
from densemble.selection.open_candidates import Dropped, open_all, require_enough
from densemble.selection.options import Options
from densemble.selection.recipe import Fitted, Recipe
from densemble.selection.served_cascade import cascade_of
from densemble.selection.strategies import ParetoPoint, pareto, price
from densemble.selection.timing import milliseconds
from densemble.selection.variants import Candidate, find_candidates
from densemble.shapes import Size, size_of
from densemble.storage.runs import RunFolder, write_json
from densemble.tasks import Task

Report = Callable[[str], None]
FRONT_ROUNDS = 10
"""Rounds of greedy selection for the Pareto front."""
MOST = 500
"""Images that are selected on: more make it slower, and hardly better."""
FEWEST = 4
"""Images that a comparison needs."""


@dataclass(frozen=True)
class Source:
    """What an assembly is made from.

    Attributes:
        run, config, task: of the training.
        data: images and targets.
        baselines: held-out scores of predictions without training.
        report: called with one line of text at every step.
    """

    run: RunFolder
    config: RunConfig
    task: Task
    data: FolderData
    baselines: Mapping[str, Scores]
    report: Report


@dataclass(frozen=True)
class _Result:
    """An ensemble and everything that is known about it.

    Attributes:
        fitted: the ensemble over the maps as served, of the images that it was fitted on.
        candidates, dropped: all that could be used, and those that could not.
        crossed: measurements on images that played no part; ``None`` where they are too few.
        folds: how these were made.
        trades: Pareto front on the images that the ensemble was fitted on.
        correlation: of the candidates' errors.
        guarantee: fitted on further images, with its check.
        checked: coverage of the guarantee.
        scores: of the ensemble as saved on all validation images.
        classes: IoU of each class of each selected member on these images; empty for a task without classes.
        cascade: of the ensemble.
        milliseconds: of each candidate.
    """

    fitted: Fitted
    candidates: list[Candidate]
    dropped: list[Dropped]
    objective: Objective
    crossed: CrossFit | None
    folds: str
    trades: list[ParetoPoint]
    correlation: dict[str, Any]
    guarantee: Guarantee | None
    checked: dict[str, Any]
    scores: Scores
    classes: dict[str, list[float]]
    cascade: Cascade | None
    milliseconds: dict[str, float]
    map_size: Size

    @property
    def shares(self) -> dict[str, float]:
        """Weight of each candidate, 0 for those that were not selected."""
        names = [candidate.name for candidate in self.candidates]
        return dict(zip(names, self.fitted.weights, strict=True))

    @property
    def temperatures(self) -> dict[str, float]:
        """Of the selected candidates."""
        held = self.fitted.held
        return dict(zip(held.names, held.temperatures, strict=True))


def assemble(source: Source, options: Options) -> Ensemble:
    """The ensemble of a run, with ``ensemble.json``, ``analysis.json`` and ``report.html`` left in it.

    Temperatures, selection, rule and calibration are fitted on the validation images, or on one half of them where a
    guarantee is asked for; the guarantee is fitted on the other half. All of it is repeated for every fold of these
    images, and what is reported was measured on the fold that was left out.

    Args:
        source: of the candidates.
        options: that were checked with :meth:`Options.require`.

    Raises:
        UsageError: a candidate that is not there.
        ArtifactError: fewer usable candidates than are needed.
        DataError: too few images for the guarantee.
    """
    run, task, data, report = source.run, source.task, source.data, source.report
    found = find_candidates(run, source.config)
    candidates, maps, dropped = open_all(found, len(data.val), task.out_channels)
    require_enough(len(candidates), dropped, options.min_members, options.named, report)
    names = [candidate.name for candidate in candidates]
    require_members(options, names)
    objective = task.objective(options.metric)
    size = size_of(maps[0])
    # Targets come with fixations at their own size only.
    at_fixations = objective.name in ("nss", "auc_judd")
    targets = full_size_targets(data, "val") if at_fixations else small_targets(data, source.config, run, size)
    groups = groups_of(data)
    images, others = _images(len(data.val), options, groups)
    if len(images) < len(data.val) and options.promise == "none":
        report(f"selected on {len(images)} of {len(data.val)} validation images")
    kept = held_out(names, maps, targets, task).only(images)
    costs = milliseconds(run, candidates, source.config.input_size)
    with scratch_folder(run.cache) as scratch:
        evidence = gather(kept, candidates, data, scratch, report)
        recipe = Recipe(evidence, options, objective, costs, baseline_filter(kept, baseline_maps(run, data, size)))
        with recipe.on(images, report) as fitting:
            fitted = fitting.ensemble()
            served = fitted.held.only(images)
            cascade = cascade_of(served, fitted.combination, fitting.kept, objective, costs, report)
            trades = _trades(fitting.kept, objective, costs, report)
        if fitted.combination.calibration is not None:
            report(f"calibrated: {_described(fitted.combination.calibration.describe())}")
        folds = folds_of(evidence.known, options.folds, groups) if len(images) >= FEWEST else []
        crossed = _cross_fit(recipe, folds, report)
        guarantee, checked, unseen = _guarantee(source, options, candidates, fitted, others, scratch, groups)
        scores, classes = _score(fitted, unseen, candidates, data)
        result = _Result(
            fitted, candidates, dropped, objective, crossed, described(folds, groups), trades,
            analysis.correlation(kept), guarantee, checked, scores, classes, cascade, costs, size,
        )  # fmt: skip
        ensemble = _build(source, result)
        _keep(source, options, result)
    return ensemble


def _images(count: int, options: Options, groups: Sequence[str | None] | None) -> tuple[list[int], list[int]]:
    """Numbers of the images to fit on, and of those that only the guarantee sees.

    Where a guarantee is asked for, the two are alternating blocks of neighbouring images.
    """
    images, others = list(range(count)), list[int]()
    if options.promise != "none":
        images, others = alternating_halves(images, groups)
    if len(images) > MOST:
        order = np.random.default_rng(options.seed).permutation(images)
        images = sorted(order[:MOST].tolist())
    return images, others


def _cross_fit(recipe: Recipe, folds: list[tuple[list[int], list[int]]], report: Report) -> CrossFit | None:
    if not folds:
        report("not cross-fitted: too few images with a known target; all scores are of images that were fitted on")
        return None
    try:
        return cross_fit(recipe, folds, report)
    except DataError as error:  # a metric that is undefined for most images
        report(f"not cross-fitted: {error}")
        return None


def _trades(kept: HeldOut, objective: Objective, costs: Mapping[str, float], report: Report) -> list[ParetoPoint]:
    """What can be had for how much time; empty for a single candidate."""
    if len(kept.names) < 2 or len(kept) < FEWEST:
        return []
    try:
        return pareto(kept, objective, [costs[name] for name in kept.names], FRONT_ROUNDS)
    except DataError as error:
        report(f"no Pareto front: {error}")
        return []


def _guarantee(
    source: Source, options: Options, candidates: Sequence[Candidate], fitted: Fitted, images: list[int],
    scratch: Path, groups: list[str | None] | None,
) -> tuple[Guarantee | None, dict[str, Any], HeldOut | None]:  # fmt: skip
    """The guarantee, its check, and the members' maps of the images that they were fitted and checked on."""
    if options.promise == "none":
        return None, {}, None
    options.require_images(len(images))
    held = fitted.held
    chosen = [candidate for candidate in candidates if candidate.name in held.names]
    folder = scratch / "guarantee"
    folder.mkdir()
    evidence = gather(held.only(images), chosen, source.data, folder, source.report)
    unseen = evidence.served.tempered(held.temperatures)
    guarantee = fit_guarantee(unseen, fitted.combination, options)
    if guarantee is None:
        return None, {}, unseen
    source.report(f"guarantee: {_described(guarantee.describe())}")
    return guarantee, check_guarantee(unseen, fitted.combination, options, groups), unseen


@torch.no_grad()
def _score(
    fitted: Fitted, unseen: HeldOut | None, candidates: Sequence[Candidate], data: FolderData
) -> tuple[Scores, dict[str, list[float]]]:
    """Scores of the ensemble as saved on all validation images, and IoU of each class of each of its members.

    Equal to what ``evaluate`` gives for the saved file.
    """
    task, metric = fitted.held.task, fitted.held.task.metrics()
    classes = task.objective("miou") if "miou" in metric.objectives else None
    overlaps = list[torch.Tensor]()
    for maps, target in _all_images(fitted.held, unseen, candidates, data):
        metric.update(resize_to_target(fitted.combination.combine(maps[:, None]), target[0], task)[0], *target)
        if classes is not None:
            overlaps.append(measure(maps, target, task, classes))
    if not overlaps:
        return metric.compute(), {}
    rows = class_overlaps(torch.stack(overlaps).sum(0)).tolist()
    return metric.compute(), dict(zip(fitted.held.names, rows, strict=True))


def _all_images(
    held: HeldOut, unseen: HeldOut | None, candidates: Sequence[Candidate], data: FolderData
) -> Iterator[tuple[torch.Tensor, Target]]:
    """The members' maps as served, and the target, for every validation image."""
    parts = [held] if unseen is None else [held, unseen]
    for part in parts:
        yield from part
    left = sorted(set(range(len(data.val))) - {image for part in parts for image in part.images})
    by_name = {candidate.name: candidate for candidate in candidates}
    if left:  # images that no file of logits holds, because there are too many
        runs = [run_candidate(by_name[name], data, left) for name in held.names]
        targets = full_size_targets(data, "val")
        for rows in zip(*runs, strict=True):
            pairs = zip(rows, held.temperatures, strict=True)
            logits = torch.cat([resize_maps(row.logits[None] / temperature, row.size) for row, temperature in pairs])
            yield held.task.activation(logits), targets[rows[0].image]


def _build(source: Source, result: _Result) -> Ensemble:
    """The selected networks with their weights; those that look through views share them."""
    combination = result.fitted.combination
    candidates = {candidate.name: candidate for candidate in result.candidates}
    networks: dict[Path, DenseModel] = {}
    members: dict[str, DenseModel | Viewed] = {}
    for name in combination.weights:
        candidate = candidates[name]
        if candidate.weights not in networks:
            networks[candidate.weights] = candidate.network()
        members[name] = candidate.member(networks[candidate.weights])
    return Ensemble(
        members, combination.weights, task=source.task, combine=combination.rule,
        metrics={"val": result.scores, "members": {name: candidates[name].val for name in members}},
        temperatures=result.temperatures, reading=source.data.said, fitted=combination.fitted,
        calibration=combination.calibration, guarantee=result.guarantee, cascade=result.cascade,
    ).eval()  # fmt: skip


def _described(values: Mapping[str, Any]) -> str:
    numbers = [f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, int | float)]
    per_class = "scales" in values and "biases" in values
    return ", ".join([str(values["kind"]), *(["a scale and a bias per class"] if per_class else numbers)])


def _keep(source: Source, options: Options, result: _Result) -> None:
    """Writes ``ensemble.json``, ``analysis.json`` and the report."""
    run, combination = source.run, result.fitted.combination
    summary = {
        "select": options.select, "combine": combination.rule, "metric": result.objective.name,
        "weights": result.shares, "val": result.scores,
        "milliseconds": price(result.fitted.weights, list(result.milliseconds.values())),
        "temperatures": result.temperatures,
        "calibration": None if combination.calibration is None else combination.calibration.describe(),
        "guarantee": None if result.guarantee is None else result.guarantee.describe(),
        "cascade": None if result.cascade is None else result.cascade.describe(),
        "dropped": analysis.dropped_rows(result.dropped),
    }  # fmt: skip
    values = _analyse(source, options, result, summary)
    summary["cross_fitted"] = values.get("cross_fitted")
    write_json(run.ensemble, summary)
    write_json(run.analysis, values)
    better = result.objective.higher_is_better
    write_report(run.report, values, report_strips(result.fitted, source.data, values["disagreement"], better))


def _analyse(source: Source, options: Options, result: _Result, summary: dict[str, Any]) -> dict[str, Any]:
    """What the report and the leaderboard are made of."""
    held, objective, crossed = result.fitted.held, result.objective, result.crossed
    costs = list(result.milliseconds.values())
    values = analysis.heading(str(source.run.path), source.task, objective, len(held), result.map_size)
    values |= {"chosen": summary, "dropped": summary["dropped"]}
    values["members"] = analysis.member_rows(result.candidates, result.shares, objective, result.milliseconds, crossed)
    values["baselines"] = analysis.baseline_rows(source.baselines, objective)
    values["rules"] = [] if crossed is None else analysis.rule_rows(crossed, source.task, options.seed)
    values["error_correlation"] = result.correlation
    classes = analysis.class_table(source.task, result.candidates, result.classes, result.scores, crossed)
    values |= {} if classes is None else {"per_class": classes}
    if crossed is not None:
        values["cross_fitted"] = analysis.cross_fitted(crossed, result.folds, options.seed)
        if len(result.candidates) > 1:
            values["strategies"] = analysis.strategy_rows(crossed, costs, options.seed)
        values |= analysis.trust_values(crossed)
    if result.trades:
        values["pareto"] = analysis.pareto_rows(result.trades)
    if "calibration" in values:
        warm = {name: value for name, value in result.temperatures.items() if value != 1}
        values["calibration"] |= {"temperatures": warm, "ensemble": summary["calibration"]}
    if result.guarantee is not None:
        values["guarantee"] = result.guarantee.describe() | result.checked
    images = crossed.images if crossed is not None else _image_results(result.fitted, objective)
    values["disagreement"] = analysis.image_rows(images, [sample.stem for sample in source.data.val])
    names = source.config.member_names()
    folders = {name: source.run.member(number, name) for number, name in enumerate(names)}
    values["curves"] = analysis.training_curves(folders)
    return values


def _image_results(fitted: Fitted, objective: Objective) -> list[ImageResult]:
    """The ensemble as saved on the images that it was fitted on."""
    found = []
    for image in fitted.held.images:
        maps, target = fitted.held.read(image)[:, None], fitted.held.targets[image]
        score = objective.value(measure(fitted.combination.combine(maps), target, fitted.held.task, objective)[0])
        size = size_of(target[0])
        found.append(ImageResult(image, float(score), disagreement_of(fitted.combination.predict_at(maps, size))))
    return found
