"""Analysis of an assembly as plain values, for the report and the leaderboard."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from densemble.evaluation.bootstrap import ConfidenceInterval, bootstrap, bootstrap_gain
from densemble.evaluation.scores import EnsembleMetrics
from densemble.evaluation.trust import reliability_table
from densemble.metrics import Metric, Objective
from densemble.report.html_page import Values
from densemble.selection.cross_fit import CrossFit, ImageResult, further_objectives
from densemble.selection.error_correlation import error_correlation
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.strategies import price
from densemble.selection.variants import Candidate
from densemble.shapes import Size
from densemble.storage.runs import MemberFolder
from densemble.tasks import Task
from densemble.training.callbacks import read_rows

CALIBRATION_METRICS = ("miou", "ece", "classwise_ece", "brier", "nll")
"""Metrics that are shown before and after calibration."""


def heading(run: str, task: Task, objective: Objective, images: int, map_size: Size) -> Values:
    """Return run, date, task, metric and sizes of the analysis."""
    return {
        "run": run,
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "task": task.name,
        "metric": objective.name,
        "higher_is_better": objective.higher_is_better,
        "pictures": images,
        "map_size": list(map_size),
    }


def interval(value: ConfidenceInterval) -> dict[str, float | None]:
    """Convert an interval to plain values."""
    return {key: _number(number) for key, number in value._asdict().items()}


def cross_fitted(crossed: CrossFit, folds: str, seed: int) -> Values:
    """Return the scores of the ensemble on images that it was not fitted on, and the parts of its gain.

    The gain is over the member with the best score on all images, as it was trained. That it was the best on these
    images makes the gain rather too small. It is the sum of ``selection`` (members, weights and rule) and
    ``calibration``.
    """
    objective = crossed.objective
    whole, uncalibrated, best = crossed.of("ensemble"), crossed.of("uncalibrated"), crossed.of("best member")
    return {
        "folds": folds,
        "best_member": crossed.best_member,
        "score": interval(bootstrap(whole, objective, seed=seed)),
        "scores": _scalars(crossed.calibrated.metric),
        "gain": {
            "total": interval(bootstrap_gain(whole, best, objective, seed=seed)),
            "selection": interval(bootstrap_gain(uncalibrated, best, objective, seed=seed)),
            "calibration": interval(bootstrap_gain(whole, uncalibrated, objective, seed=seed)),
        },
    }


def strategy_rows(crossed: CrossFit, milliseconds: Sequence[float], seed: int) -> list[Values]:
    """Return score and cost of each selection strategy with all further steps, on images that it was not fitted on.

    ``gain_over_best`` is the gain over the best member as it was trained, ``gain_over_all`` that over the strategy
    ``all``.
    """
    objective, best, every = crossed.objective, crossed.of("best member"), crossed.of("all")
    return [
        {
            **_scored(name, crossed.of(name), objective, seed),
            "members": round(sum(sum(w > 0 for w in each) for each in weights) / len(weights), 1),
            "milliseconds": sum(price(each, milliseconds) for each in weights) / len(weights),
            "gain_over_best": interval(bootstrap_gain(crossed.of(name), best, objective, seed=seed)),
            "gain_over_all": interval(bootstrap_gain(crossed.of(name), every, objective, seed=seed)),
        }
        for name, weights in crossed.weights.items()
    ]


def rule_rows(crossed: CrossFit, task: Task, seed: int) -> list[Values]:
    """Return the score of each rule for the selected members, uncalibrated, on images that it was not fitted on."""
    rows = []
    objective = crossed.objective
    for name, by_metric in crossed.rules.items():
        statistics, mean = (torch.cat(crossed.rules[rule][objective.name]) for rule in (name, "mean"))
        further = {
            other.name: _number(float(other.value(torch.cat(by_metric[other.name]).sum(0))))
            for other in further_objectives(task)
        }
        gain = interval(bootstrap_gain(statistics, mean, objective, seed=seed))
        rows.append({**_scored(name, statistics, objective, seed), "gain_over_mean": gain, **further})
    return rows


def _scored(name: str, rows: Tensor, objective: Objective, seed: int) -> Values:
    """Return name, score and interval of statistics ``(N, S)``."""
    score = interval(bootstrap(rows, objective, seed=seed))
    return {"name": name, "score": score["value"], "low": score["low"], "high": score["high"]}


def member_rows(
    candidates: Sequence[Candidate], shares: Mapping[str, float], objective: Objective,
    milliseconds: Mapping[str, float], crossed: CrossFit | None,
) -> list[Values]:  # fmt: skip
    """Return score, cost and weight of every candidate, and the loss of the cross-fitted ensemble without it."""
    worth = {} if crossed is None else leave_one_out(crossed)
    return [
        {
            "name": candidate.name,
            "kind": candidate.kind,
            "score": _number(candidate.val.get(objective.name)),
            "milliseconds": milliseconds[candidate.name],
            "parameters": candidate.record.get("parameters"),
            "share": shares[candidate.name],
            "leave_one_out": _number(worth.get(candidate.name)),
            "state": "done",
        }
        for candidate in candidates
    ]


def leave_one_out(crossed: CrossFit) -> dict[str, float]:
    """Return the gain of the cross-fitted ensemble by each member; only members that at least one fold selected."""
    objective, whole = crossed.objective, crossed.of("ensemble")
    sign = 1 if objective.higher_is_better else -1
    worth = {}
    for name, parts in crossed.without.items():
        rows = torch.cat(parts)
        if len(rows) == len(whole) and not torch.equal(rows, whole):
            worth[name] = sign * float(objective.value(whole.sum(0)) - objective.value(rows.sum(0)))
    return worth


def baseline_rows(baselines: Mapping[str, Mapping[str, Any]], objective: Objective) -> list[Values]:
    """Return the scores of predictions that need no training."""
    return [{"name": name, "score": _number(scores.get(objective.name))} for name, scores in baselines.items()]


def class_table(
    task: Task, candidates: Sequence[Candidate], selected: Mapping[str, Sequence[float]], saved: Mapping[str, Any],
    crossed: CrossFit | None,
) -> Values | None:  # fmt: skip
    """Return the IoU of each class.

    The rows are: the saved ensemble and its members on all validation images, equal to ``evaluate``; the other
    candidates with the scores of their training; and the cross-fitted ensemble.
    """
    key = "iou_per_class"
    if key not in saved:
        return None
    scores = {candidate.name: candidate.val[key] for candidate in candidates if candidate.val.get(key)} | dict(selected)
    scores["ensemble"] = saved[key]
    if crossed is not None:
        scores["ensemble, cross-fitted"] = crossed.calibrated.metric.compute()[key]
    return {
        "classes": list(task.classes),
        "scores": {name: [_number(value) for value in row] for name, row in scores.items()},
    }


def correlation(held: HeldOut) -> Values:
    """Return the correlation matrix of the candidates' errors."""
    matrix = error_correlation(held).tolist()
    return {"names": list(held.names), "matrix": [[_number(value) for value in row] for row in matrix]}


def image_rows(images: Sequence[ImageResult], stems: Sequence[str]) -> list[Values]:
    """Return the result of each image, sorted by disagreement of the members, largest first."""
    return [
        {"picture": stems[result.image], "number": result.image, "score": _number(result.score),
         "disagreement": _number(result.disagreement)}
        for result in sorted(images, key=lambda result: -result.disagreement)
    ]  # fmt: skip


def trust_values(crossed: CrossFit) -> Values:
    """Return ``calibration`` and ``risk_coverage`` of the cross-fitted ensemble, if the task has them."""
    if crossed.plain is None:
        return {}
    before, after = crossed.plain.trust.compute(), crossed.calibrated.trust.compute()
    values: Values = {"risk_coverage": {**after["risk_coverage"], "random": after["risk_coverage"]["risk"]}}
    if "interval_coverage" not in after:
        calibration: Values = {"before": _reliability(crossed.plain), "after": _reliability(crossed.calibrated)}
        return {**values, "calibration": calibration}
    old, new = before["interval_coverage"], after["interval_coverage"]
    rows = zip(old["levels"], old["coverage"] or [], new["coverage"] or [], strict=False)
    coverage = [{"nominal": level, "before": plain, "after": calibrated} for level, plain, calibrated in rows]
    return {**values, "calibration": {"coverage": coverage}}


def training_curves(folders: Mapping[str, MemberFolder]) -> dict[str, list[dict[str, float]]]:
    """Return the metrics of each epoch of each member; missing and non-finite values are left out."""
    return {
        name: [{key: value for key, value in row.items() if math.isfinite(value)} for row in read_rows(folder.metrics)]
        for name, folder in folders.items()
        if folder.metrics.is_file()
    }


def _reliability(metrics: EnsembleMetrics) -> Values:
    values = metrics.metric.compute()
    known: Values = {name: values[name] for name in CALIBRATION_METRICS if name in values}
    return {**known, "table": reliability_table(metrics.metric)}


def _scalars(metric: Metric) -> dict[str, float | None]:
    return {name: _number(value) for name, value in metric.compute().items() if not isinstance(value, list)}


def _number(value: Any) -> float | None:
    """Convert a finite number to float and anything else to ``None``, as strict JSON requires."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
