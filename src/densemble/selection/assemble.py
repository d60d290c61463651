"""Assemble the candidates of a run to one ensemble with calibration, guarantee, cascade and report."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densemble.data.folder import FolderData
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.member_views import ViewedMember
from densemble.ensemble.resize import resize_maps
from densemble.errors import DataError
from densemble.evaluation.class_results import class_counts, class_values, count_image
from densemble.evaluation.disagreement import disagreement_of
from densemble.evaluation.scores import Scores, Target, update_metric
from densemble.metrics import Objective
from densemble.metrics.class_counts import ClassCounts
from densemble.metrics.segmentation import class_overlaps
from densemble.nets.dense import DenseModel
from densemble.progress.phases import phase, track
from densemble.report.run_page import write_report
from densemble.selection import analysis
from densemble.selection.baseline_filter import baseline_filter, baseline_maps
from densemble.selection.candidate_maps import gather, run_candidate
from densemble.selection.candidate_scores import measure
from densemble.selection.choose import named_weights
from densemble.selection.conformal import check_guarantee, fit_guarantee
from densemble.selection.cross_fit import CrossFit, ImageResult, cross_fit
from densemble.selection.explain import report_strips
from densemble.selection.folds import Split, alternating_halves, described, folds_of, groups_of
from densemble.selection.held_out_predictions import HeldOut, Targets, held_out
from densemble.selection.held_out_targets import full_size_targets, small_targets
from densemble.selection.open_candidates import Dropped, open_all, require_enough
from densemble.selection.options import Options
from densemble.selection.recipe import Fitted, Recipe
from densemble.selection.recorded_figures import KEY, recorded_figures
from densemble.selection.served_cascade import cascade_of
from densemble.selection.strategies import ParetoPoint, pareto, price
from densemble.selection.timing import milliseconds
from densemble.selection.variants import Candidate, Source, damaged_records, find_candidates
from densemble.shapes import Size, size_of
from densemble.storage.writing import scratch_folder, write_json

log = logging.getLogger(__name__)

FRONT_ROUNDS = 10
"""Rounds of greedy selection for the Pareto front."""
STEPS = {"predictions": 0, "timing members": 1, "maps": 1, "selection": 2, "cross-fitting": 3, "report": 4}
"""Work of an assembly that is shown while it runs -> index of its step."""
MAX_IMAGES = 500
"""Maximum number of images of the selection: more images take longer and hardly change the result."""
MIN_IMAGES = 4
"""Minimum number of images for a comparison."""


@dataclass(frozen=True)
class _Result:
    """An ensemble and all its measurements.

    Attributes:
        fitted: the ensemble and its served maps on the images that it was fitted on.
        candidates, dropped: usable and unusable candidates.
        objective: objective of the selection.
        crossed: measurements on images that were not used in the fit; ``None`` if there are too few images.
        folds: description of the folds.
        front: Pareto front on the images that the ensemble was fitted on.
        correlation: correlation of the candidates' errors.
        guarantee: guarantee, fitted on the other images.
        checked: coverage of the guarantee.
        scores: scores of the saved ensemble on all validation images.
        classes: IoU of each class for each selected member on these images; empty for a task without classes.
        counts: target and predicted classes on these images; ``None`` for a task without classes of pixels.
        cascade: cascade of the ensemble.
        milliseconds: time of each candidate by name.
        map_size: (h, w) of the kept maps.
    """

    fitted: Fitted
    candidates: list[Candidate]
    dropped: list[Dropped]
    objective: Objective
    crossed: CrossFit | None
    folds: str
    front: list[ParetoPoint]
    correlation: dict[str, Any]
    guarantee: Guarantee | None
    checked: dict[str, Any]
    scores: Scores
    classes: dict[str, list[float]]
    counts: ClassCounts | None
    cascade: Cascade | None
    milliseconds: dict[str, float]
    map_size: Size

    @property
    def shares(self) -> dict[str, float]:
        """Weight of each candidate, 0 for candidates that are not selected."""
        names = [candidate.name for candidate in self.candidates]
        return dict(zip(names, self.fitted.weights, strict=True))

    @property
    def temperatures(self) -> dict[str, float]:
        """Temperatures of the selected candidates."""
        held = self.fitted.held
        return dict(zip(held.names, held.temperatures, strict=True))


def assemble(source: Source, options: Options) -> Ensemble:
    """Make the ensemble of a run, and write ``ensemble.json``, ``analysis.json`` and ``report.html`` into the run.

    Temperatures, selection, rule and calibration are fitted on the validation images. If a guarantee is requested, they
    are fitted on one half of these images and the guarantee on the other half. All steps are repeated for every fold of
    the images, and the reported scores are measured on the fold that was left out.

    Args:
        source: the trained run.
        options: options that passed :meth:`Options.require`.

    Raises:
        UsageError: no candidate has a requested name.
        ArtifactError: too few usable candidates.
        DataError: too few images for the guarantee.
    """
    with phase("assembling", len(set(STEPS.values())), steps=True) as steps:
        return _assemble(source, options, lambda name: steps.start(STEPS[name], name))


def _assemble(source: Source, options: Options, begin: Callable[[str], None]) -> Ensemble:
    """Make the ensemble; ``begin`` is called with each of the ``STEPS``."""
    run, task, data = source.run, source.task, source.data
    begin("predictions")
    candidates, maps, dropped = open_all(find_candidates(run, source.config), len(data.val), task.out_channels)
    dropped += [Dropped(name, reason) for name, reason in damaged_records(run, source.config).items()]
    require_enough(len(candidates), dropped, options.min_members, options.named)
    names = [candidate.name for candidate in candidates]
    if options.named or options.weights is not None:
        named_weights(options, names)
    objective, size, groups = task.objective(options.metric), size_of(maps[0]), groups_of(data)
    images, guarantee_images = _images(len(data.val), options, groups)
    kept = held_out(names, maps, _targets(source, objective, size), task).only(images)
    begin("timing members")
    costs = milliseconds(run, candidates, source.config.input_size)
    begin("maps")
    with scratch_folder(run.cache) as scratch:
        evidence = gather(kept, candidates, data, scratch)
        recipe = Recipe(evidence, options, objective, costs, baseline_filter(kept, baseline_maps(run, data, size)))
        begin("selection")
        with recipe.on(images, logging.INFO) as fitting:
            fitted = fitting.ensemble()
            served = fitted.held.only(images)
            cascade = cascade_of(served, fitted.combination, fitting.kept, objective, costs)
            front = _pareto_front(fitting.kept, objective, costs)
        if fitted.combination.calibration is not None:
            log.info(f"calibrated: {_described(fitted.combination.calibration.describe())}")
        begin("cross-fitting")
        folds = folds_of(evidence.known, options.folds, groups) if len(images) >= MIN_IMAGES else []
        crossed = _cross_fit(recipe, folds)
        guarantee, checked, guarantee_maps = _guarantee(
            data, options, candidates, fitted, guarantee_images, scratch, groups
        )
        begin("report")
        scores, classes, counts = _score(fitted, guarantee_maps, candidates, data)
        result = _Result(
            fitted, candidates, dropped, objective, crossed, described(folds, groups), front,
            analysis.correlation(kept), guarantee, checked, scores, classes, counts, cascade, costs, size,
        )  # fmt: skip
        return _build(source, result, _write(source, options, result))


def _images(count: int, options: Options, groups: Sequence[str | None] | None) -> tuple[list[int], list[int]]:
    """Return the images to fit on, and the images for the guarantee.

    If a guarantee is requested, the two lists are alternating blocks of neighbouring images.
    """
    images, guarantee_images = list(range(count)), list[int]()
    if options.guarantee != "none":
        images, guarantee_images = alternating_halves(images, groups)
    if len(images) > MAX_IMAGES:
        order = np.random.default_rng(options.seed).permutation(images)
        images = sorted(order[:MAX_IMAGES].tolist())
    if len(images) < count and options.guarantee == "none":
        log.info(f"selected on {len(images)} of {count} validation images")
    return images, guarantee_images


def _targets(source: Source, objective: Objective, size: Size) -> Targets:
    """Return the targets of the validation images, of full size for fixations, which small targets do not have."""
    if objective.needs_fixations:
        return full_size_targets(source.data, "val")
    return small_targets(source.data, source.config, source.run, size)


def _cross_fit(recipe: Recipe, folds: list[Split]) -> CrossFit | None:
    if not folds:
        log.info("not cross-fitted: too few images with a known target; all scores are measured on images of the fit")
        return None
    try:
        return cross_fit(recipe, folds)
    except DataError as error:  # a metric that is undefined for most images
        log.info(f"not cross-fitted: {error}")
        return None


def _pareto_front(kept: HeldOut, objective: Objective, costs: Mapping[str, float]) -> list[ParetoPoint]:
    """Return the Pareto front of score and time; empty for a single candidate or too few images."""
    if len(kept.names) < 2 or len(kept) < MIN_IMAGES:
        return []
    try:
        return pareto(kept, objective, [costs[name] for name in kept.names], FRONT_ROUNDS)
    except DataError as error:
        log.info(f"no Pareto front: {error}")
        return []


def _guarantee(
    data: FolderData, options: Options, candidates: Sequence[Candidate], fitted: Fitted, images: list[int],
    scratch: Path, groups: list[str | None] | None,
) -> tuple[Guarantee | None, dict[str, Any], HeldOut | None]:  # fmt: skip
    """Return the guarantee, its measured coverage, and the served maps of the images of the guarantee."""
    if options.guarantee == "none":
        return None, {}, None
    options.require_images(len(images))
    held = fitted.held
    members = [candidate for candidate in candidates if candidate.name in held.names]
    folder = scratch / "guarantee"
    folder.mkdir()
    evidence = gather(held.only(images), members, data, folder)
    served = evidence.served.tempered(held.temperatures)
    guarantee = fit_guarantee(served, fitted.combination, options)
    if guarantee is None:
        return None, {}, served
    log.info(f"guarantee: {_described(guarantee.describe())}")
    return guarantee, check_guarantee(served, fitted.combination, options, groups), served


@torch.no_grad()
def _score(
    fitted: Fitted, guarantee_maps: HeldOut | None, candidates: Sequence[Candidate], data: FolderData
) -> tuple[Scores, dict[str, list[float]], ClassCounts | None]:
    """Return the scores and the counts of classes of the saved ensemble on all validation images, and members' IoU.

    The scores and the IoU of each class for each member equal the result of ``evaluate`` for the saved file.
    """
    task, metric = fitted.held.task, fitted.held.task.metrics()
    classes = task.objective("miou") if "miou" in metric.objectives else None
    overlaps, counts = list[torch.Tensor](), class_counts(task)
    examples = track(_all_images(fitted.held, guarantee_maps, candidates, data), "scoring", len(data.val), "images")
    for maps, target in examples:
        combined = fitted.combination.combine(maps[:, None])
        update_metric(metric, task, combined, *target)
        count_image(counts, task, combined, target[0])
        if classes is not None:
            overlaps.append(measure(maps, target, task, classes))
    if not overlaps:
        return metric.compute(), {}, counts
    rows = class_overlaps(torch.stack(overlaps).sum(0)).tolist()
    return metric.compute(), dict(zip(fitted.held.names, rows, strict=True)), counts


def _all_images(
    held: HeldOut, guarantee_maps: HeldOut | None, candidates: Sequence[Candidate], data: FolderData
) -> Iterator[tuple[torch.Tensor, Target]]:
    """Yield the served maps of the members and the target for every validation image."""
    parts = [held] if guarantee_maps is None else [held, guarantee_maps]
    for part in parts:
        yield from part
    remaining = sorted(set(range(len(data.val))) - {image for part in parts for image in part.images})
    by_name = {candidate.name: candidate for candidate in candidates}
    if remaining:  # images beyond the limits of the fits, whose logits are not stored
        runs = [run_candidate(by_name[name], data, remaining) for name in held.names]
        targets = full_size_targets(data, "val")
        for outputs in zip(*runs, strict=True):
            pairs = zip(outputs, held.temperatures, strict=True)
            logits = [resize_maps(output.logits[None] / temperature, output.size) for output, temperature in pairs]
            yield held.task.activation(torch.cat(logits)), targets[outputs[0].image]


def _build(source: Source, result: _Result, figures: dict[str, Any]) -> Ensemble:
    """Build the ensemble with these recorded figures; members that are views of one network share it."""
    combination = result.fitted.combination
    candidates = {candidate.name: candidate for candidate in result.candidates}
    networks: dict[Path, DenseModel] = {}
    members: dict[str, DenseModel | ViewedMember] = {}
    for name in combination.weights:
        candidate = candidates[name]
        if candidate.weights not in networks:
            networks[candidate.weights] = candidate.network()
        members[name] = candidate.member(networks[candidate.weights])
    return Ensemble(
        members, combination.weights, task=source.task, combine=combination.rule,
        metrics={"val": result.scores, "members": {name: candidates[name].val for name in members}, KEY: figures},
        temperatures=result.temperatures, reading=source.data.said, fitted=combination.fitted,
        calibration=combination.calibration, guarantee=result.guarantee, cascade=result.cascade,
    ).eval()  # fmt: skip


def _described(values: Mapping[str, Any]) -> str:
    numbers = [f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, int | float)]
    per_class = "scales" in values and "biases" in values
    return ", ".join([str(values["kind"]), *(["a scale and a bias per class"] if per_class else numbers)])


def _write(source: Source, options: Options, result: _Result) -> dict[str, Any]:
    """Write ``ensemble.json``, ``analysis.json`` and the report; return the figures for the artifact."""
    run, combination = source.run, result.fitted.combination
    summary = {
        "select": options.select, "combine": combination.rule, "metric": result.objective.name,
        "weights": result.shares, "val": result.scores,
        "milliseconds": price(result.fitted.weights, list(result.milliseconds.values())),
        "temperatures": result.temperatures,
        "calibration": None if combination.calibration is None else combination.calibration.describe(),
        "guarantee": None if result.guarantee is None else result.guarantee.describe(),
        "cascade": None if result.cascade is None else result.cascade.describe(),
        "dropped": [asdict(candidate) for candidate in result.dropped],
    }  # fmt: skip
    values = _analyse(source, options, result, summary)
    summary["cross_fitted"] = values.get("cross_fitted")
    write_json(run.ensemble, summary)
    write_json(run.analysis, values)
    better = result.objective.higher_is_better
    write_report(run.report, values, report_strips(result.fitted, source.data, values["disagreement"], better))
    return recorded_figures(run, values, [c for c in result.candidates if c.name in combination.weights])


def _analyse(source: Source, options: Options, result: _Result, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the report and the leaderboard."""
    held, objective, crossed = result.fitted.held, result.objective, result.crossed
    costs = list(result.milliseconds.values())
    values = analysis.heading(str(source.run.path), source.task, objective, len(held), result.map_size)
    values |= {"chosen": summary, "dropped": summary["dropped"]}
    values["members"] = analysis.member_rows(result.candidates, result.shares, objective, result.milliseconds, crossed)
    values["baselines"] = analysis.baseline_rows(source.baselines, objective)
    values["rules"] = [] if crossed is None else analysis.rule_rows(crossed, source.task, options.seed)
    values["error_correlation"] = result.correlation
    classes = analysis.class_table(source.task, result.candidates, result.classes, result.scores, crossed)
    if classes is not None:
        counted = class_values(result.counts if crossed is None else crossed.counts)
        values |= {key: counted.pop(key) for key in ("confusion",) if key in counted}
        values["per_class"] = {**classes, **counted}
    if crossed is not None:
        values["cross_fitted"] = analysis.cross_fitted(crossed, result.folds, options.seed)
        if len(result.candidates) > 1:
            values["strategies"] = analysis.strategy_rows(crossed, costs, options.seed)
        values |= analysis.trust_values(crossed)
    if result.front:
        values["pareto"] = [asdict(point) for point in result.front]
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
    """Return the results of the saved ensemble on the images that it was fitted on."""
    results = []
    for image in fitted.held.images:
        maps, target = fitted.held.read(image)[:, None], fitted.held.targets[image]
        score = objective.value(measure(fitted.combination.combine(maps), target, fitted.held.task, objective)[0])
        prediction = fitted.combination.predict_at(maps, size_of(target[0]))
        results.append(ImageResult(image, float(score), disagreement_of(prediction)))
    return results
