"""assemble: candidates are checked, chosen, joined, calibrated, promised something about, scored and explained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemble.assembly import analysis
from densemble.assembly.calibrating import fit_calibration, member_temperatures
from densemble.assembly.candidates import Candidate, Dropped, find_candidates, open_all, require_enough
from densemble.assembly.cascading import cascade_of
from densemble.assembly.choosing import (
    RuleScore,
    better_than_nothing,
    choose_rule,
    make_choice,
    mixture_of,
    score_rules,
)
from densemble.assembly.mixture import Mixture
from densemble.assembly.options import AUTOMATIC, Options
from densemble.assembly.pictures import report_strips
from densemble.assembly.promising import check_promise, fit_promise
from densemble.assembly.tempering import written_tempered
from densemble.assembly.timing import milliseconds
from densemble.assembly.trust import best_way, trust
from densemble.assembly.truths import OwnTruths, kept_truths
from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.views import Viewed
from densemble.errors import DataError
from densemble.evaluation import Scores
from densemble.heldout.choose import pareto, price
from densemble.heldout.gain import Choice, out_of_fold
from densemble.heldout.predictions import HeldOut, held_out
from densemble.nets.dense import DenseModel
from densemble.report.run_page import write_report
from densemble.storage.runs import RunFolder, write_json
from densemble.tasks import Task
from densemble.tasks.objectives import Objective, make_objective

Report = Callable[[str], None]
FRONT_ROUNDS = 10
"""Of greedy selection, for the Pareto front."""
MOST = 500
"""Pictures to choose by: more make it slower, and hardly better."""
FEWEST = 4
"""Pictures that a comparison needs."""


@dataclass(frozen=True)
class Source:
    """What an assembly is made from.

    Attributes:
        run, config, task: of the training.
        data: pictures and maps.
        baselines: held-out scores of what needs no training.
        report: called with one line of text at every step.
    """

    run: RunFolder
    config: RunConfig
    task: Task
    data: FolderData
    baselines: Mapping[str, Scores]
    report: Report


@dataclass(frozen=True)
class _Choosing:
    """What is chosen from, and by what.

    Attributes:
        candidates: all that can be used, and those that cannot.
        plain: their predictions on the pictures to choose by, and with temperatures of their own.
        tempered: the same, with the temperatures applied to what is read.
    """

    candidates: list[Candidate]
    dropped: list[Dropped]
    plain: HeldOut
    tempered: HeldOut
    objective: Objective
    milliseconds: dict[str, float]

    @property
    def costs(self) -> list[float]:
        """Milliseconds in the order of the candidates."""
        return [self.milliseconds[name] for name in self.tempered.names]

    @property
    def temperatures(self) -> dict[str, float]:
        """By candidate."""
        return dict(zip(self.plain.names, self.plain.temperatures, strict=True))


@dataclass(frozen=True)
class _Chosen:
    """What came of it."""

    choices: dict[str, Choice]
    weights: list[float]
    mixture: Mixture
    rules: Mapping[str, RuleScore]
    way: str
    guarantee: Guarantee | None
    scores: Scores


def assemble(source: Source, options: Options) -> Ensemble:
    """The ensemble of a run, with ``ensemble.json``, ``analysis.json`` and ``report.html`` left in it.

    Args:
        source: of the candidates.
        options: that were checked with :meth:`Options.require`.

    Raises:
        UsageError: a candidate that is not there.
        ArtifactError: fewer usable candidates than are needed.
        DataError: too few pictures for what is to be promised.
    """
    run, task, data = source.run, source.task, source.data
    found = find_candidates(run, source.config)
    candidates, maps, dropped = open_all(found, len(data.val), task.out_channels)
    require_enough(len(candidates), dropped, options.min_members, options.named, source.report)
    objective = make_objective(task, options.metric)
    size = (int(maps[0].shape[-2]), int(maps[0].shape[-1]))
    # Only at their own size do targets come with fixations.
    at_fixations = objective.name in ("nss", "auc_judd")
    truths = OwnTruths(data, "val") if at_fixations else kept_truths(data, source.config, run, size)
    plain = held_out([candidate.name for candidate in candidates], maps, truths, task)
    plain = plain.only(_pictures_to_choose_by(len(plain), options))
    if len(plain) < len(data.val):
        source.report(f"chosen by {len(plain)} of {len(data.val)} validation pictures")
    plain = member_temperatures(plain, options.calibrate, source.report)
    costs = milliseconds(run, candidates, source.config.input_size)
    with written_tempered(plain, run.cache) as tempered:
        choosing = _Choosing(candidates, dropped, plain, tempered, objective, costs)
        chosen = _choose(source, options, choosing)
        ensemble = _build(source, choosing, chosen)
        ensemble.cascade = cascade_of(ensemble, chosen.mixture, objective, choosing.milliseconds, data, source.report)
        _keep(source, options, choosing, chosen, ensemble.cascade)
    return ensemble


def _choose(source: Source, options: Options, choosing: _Choosing) -> _Chosen:
    held, objective, report = choosing.tempered, choosing.objective, source.report
    able = better_than_nothing(choosing.candidates, source.baselines, source.task)
    choose = make_choice(options, able, objective, choosing.milliseconds)
    weights = list(choose(held))
    said = [f"{name} {weight:.2f}" for name, weight in zip(held.names, weights, strict=True) if weight > 0]
    report(f"chosen: {', '.join(said)}")
    others = ("greedy", "best", "all")
    choices = {name: make_choice(Options(select=name), able, objective, choosing.milliseconds) for name in others}
    plain = mixture_of(held, weights)
    rules = score_rules(plain, objective, options.seed) if len(plain.shares) > 1 else {}
    mixture = choose_rule(plain, options, rules, objective)
    if options.combine == AUTOMATIC:
        report(f"combined by: {mixture.rule}")
    way = options.calibrate if options.calibrate != AUTOMATIC else best_way(mixture)
    mixture = fit_calibration(mixture, way, report)
    if mixture.calibration is not None:
        report(f"calibrated: {_described(mixture.calibration.describe())}")
    guarantee = _promise(mixture, options, source)
    scores = _score(mixture, OwnTruths(source.data, "val"))
    return _Chosen({**choices, options.select: choose}, weights, mixture, rules, way, guarantee, scores)


def _build(source: Source, choosing: _Choosing, chosen: _Chosen) -> Ensemble:
    """The chosen networks with their weights; those that look through views share them."""
    mixture = chosen.mixture
    candidates = {candidate.name: candidate for candidate in choosing.candidates}
    networks: dict[Path, DenseModel] = {}
    members: dict[str, DenseModel | Viewed] = {}
    for name in mixture.held.names:
        own = candidates[name]
        if own.weights not in networks:
            networks[own.weights] = own.network()
        members[name] = own.member(networks[own.weights])
    return Ensemble(
        members, list(mixture.shares), task=source.task, combine=mixture.rule,
        metrics={"val": chosen.scores, "members": {name: candidates[name].val for name in members}},
        temperatures=choosing.temperatures, reading=source.data.said, fitted=mixture.fitted,
        calibration=mixture.calibration, guarantee=chosen.guarantee,
    ).eval()  # fmt: skip


def _pictures_to_choose_by(pictures: int, options: Options) -> list[int]:
    """Random ones, as many as are enough; where something is promised at most a half, for a promise is made of pictures
    that were not seen."""
    able = pictures if options.promise == "none" else pictures - pictures // 2
    order = np.random.default_rng(options.seed).permutation(pictures)
    return sorted(order[: min(able, MOST)].tolist())


def _promise(mixture: Mixture, options: Options, source: Source) -> Guarantee | None:
    if options.promise == "none":
        return None
    found = fit_promise(_unseen(mixture, source), options)
    if found is not None:
        source.report(f"guarantee: {_described(found.describe())}")
    return found


def _unseen(mixture: Mixture, source: Source) -> Mixture:
    """On the pictures that nothing was chosen or calibrated by."""
    seen = set(mixture.held.pictures)
    return mixture.only([number for number in range(len(source.data.val)) if number not in seen])


def _described(values: Mapping[str, Any]) -> str:
    told = [f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, int | float)]
    per_class = "scales" in values and "biases" in values
    return ", ".join([str(values["kind"]), *(["a scale and a bias per class"] if per_class else told)])


@torch.no_grad()
def _score(mixture: Mixture, truths: OwnTruths) -> Scores:
    """Scores on all validation pictures at the targets' own size; where maps are smaller, what was kept is resized."""
    task, metric = mixture.held.task, mixture.held.task.metrics()
    for number in range(len(truths)):
        target, points = truths[number]
        metric.update(_at(mixture.join(mixture.held.read(number)), target, task)[0], target, points)
    return metric.compute()


def _at(maps: Tensor, target: Tensor, task: Task) -> Tensor:
    return resize_maps(maps, (int(target.shape[-2]), int(target.shape[-1])), task.target_kind == "density")


def _keep(source: Source, options: Options, choosing: _Choosing, chosen: _Chosen, cascade: Cascade | None) -> None:
    """Writes what was chosen and what it is worth."""
    run, held, mixture = source.run, choosing.tempered, chosen.mixture
    summary = {
        "select": options.select, "combine": mixture.rule, "metric": choosing.objective.name,
        "weights": dict(zip(held.names, chosen.weights, strict=True)), "val": chosen.scores,
        "milliseconds": price(chosen.weights, choosing.costs), "temperatures": choosing.temperatures,
        "calibration": None if mixture.calibration is None else mixture.calibration.describe(),
        "guarantee": None if chosen.guarantee is None else chosen.guarantee.describe(),
        "cascade": None if cascade is None else cascade.describe(),
        "dropped": analysis.dropped_rows(choosing.dropped),
    }  # fmt: skip
    write_json(run.ensemble, summary)
    values = _analyse(source, options, choosing, chosen, summary)
    write_json(run.analysis, values)
    truths = OwnTruths(source.data, "val")
    better = choosing.objective.higher_is_better
    write_report(run.report, values, report_strips(mixture, source.data, truths, values["disagreement"], better))


def _analyse(
    source: Source, options: Options, choosing: _Choosing, chosen: _Chosen, summary: dict[str, Any]
) -> dict[str, Any]:
    """What the report and the leaderboard are made of."""
    held, objective = choosing.tempered, choosing.objective
    values = analysis.heading(str(source.run.path), source.task, objective, held)
    values |= {"chosen": summary, "dropped": summary["dropped"]}
    values["members"] = analysis.member_rows(
        choosing.candidates, held, chosen.weights, objective, choosing.milliseconds
    )
    values["baselines"] = analysis.baseline_rows(source.baselines, objective)
    if len(held.names) > 1 and len(held) >= FEWEST:
        values |= _compare(source, options, choosing, chosen)
    values["rules"] = [analysis.rule_row(name, rule) for name, rule in chosen.rules.items()]
    values |= analysis.explanation(held, chosen.weights, objective, [sample.stem for sample in source.data.val])
    if len(held) >= FEWEST:
        plain = replace(chosen.mixture, held=choosing.plain.of(chosen.mixture.held.names))
        values |= trust(plain, chosen.way)
        if "calibration" in values:
            warm = {name: value for name, value in choosing.temperatures.items() if value != 1}
            values["calibration"] |= {"temperatures": warm, "ensemble": summary["calibration"]}
    if chosen.guarantee is not None:
        values["guarantee"] = chosen.guarantee.describe() | check_promise(_unseen(chosen.mixture, source), options)
    names = source.config.member_names()
    folders = {name: source.run.member(number, name) for number, name in enumerate(names)}
    values["curves"] = analysis.training_curves(folders)
    return values


def _compare(source: Source, options: Options, choosing: _Choosing, chosen: _Chosen) -> dict[str, Any]:
    """Ways of choosing on pictures that they were not chosen by, and what can be had for how much time."""
    held, objective = choosing.tempered, choosing.objective
    folds = min(options.folds, len(held))
    try:
        outcomes = out_of_fold(held, chosen.choices, objective, folds, options.seed, choosing.costs)
        trades = pareto(held, objective, choosing.costs, FRONT_ROUNDS)
    except DataError as error:  # a metric that most pictures know nothing of
        source.report(f"ways of choosing are not compared: {error}")
        return {}
    rows = [analysis.strategy_row(name, outcome) for name, outcome in outcomes.items()]
    return {"strategies": rows, "pareto": analysis.trade_rows(trades)}
